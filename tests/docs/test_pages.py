"""Pages are understood as GitHub understands them."""

from __future__ import annotations

import pytest

from docs.site.pages import anchors, blocks, for_python_markdown, links


def test_a_block_has_its_comment_and_not_its_indent() -> None:
    text = "1. first:\n\n   <!-- figure -->\n   ```sh\n   one\n     two\n   ```\n"
    (block,) = blocks(text)
    assert (block.language, block.text, block.line, block.comment) == (
        "sh",
        "one\n  two",
        4,
        "figure",
    )


def test_links_in_code_are_none() -> None:
    text = "[a](b.md) `[c](d.md)`\n```\n[e](f.md)\n```\n[![g](h.png)](i.md#j)\n"
    assert [link.target for link in links(text)] == ["b.md", "i.md#j"]


def test_anchors_are_githubs() -> None:
    text = "# A b\n## By `--flag x|y`: why?\n## 中文 标题\n## A b\n```\n# no heading\n```\n"
    assert anchors(text) == {"a-b", "by---flag-xy-why", "中文-标题", "a-b-1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text:\n- a\n- b\n", "text:\n\n- a\n- b\n"),
        ("- a\n  b\n\n  c\n", "- a\n    b\n\n    c\n"),
        ("- a\nb\n\nc\n", "- a\n    b\n\nc\n"),
        ("1. a\n\n   ```\n   b\n   ```\n\n   c\n2. d\n", None),
        ("- a\n  - b\n    c\n- d\n", "- a\n    - b\n        c\n- d\n"),
        ("```\n- a\n  b\n```\n", "```\n- a\n  b\n```\n"),
        (r"| `a\|b` | \| |", "| `a|b` | \\| |\n"),
    ],
)
def test_the_sites_renderer_gets_what_it_wants(text: str, expected: str | None) -> None:
    if expected is None:
        expected = "1. a\n\n    ```\n    b\n    ```\n\n    c\n\n2. d\n"
    assert for_python_markdown(text) == expected
