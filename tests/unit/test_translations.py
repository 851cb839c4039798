"""The Chinese manual says what the English one says: block for block the same code, tables
of the same shape, and in every block the same names, numbers and links.

Whoever changes a page changes both. A difference names both places, by file and line. What
such a comparison cannot see, other words for the same names and numbers, is seen by digests of
the English blocks: read the Chinese ones again, then record that with
`.venv/bin/python -m tests.support.translations`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.site.pages import anchors, links
from tests.support.translations import (
    ACCEPT,
    CHINESE,
    changes,
    differences,
    digests,
    key,
    original,
    parts,
    recorded,
    translated,
)

#: What users need. Pages of measurements are in English.
MANUAL = (
    "alerts", "architecture", "cdi", "comparison", "compatibility", "configuration", "containers",
    "doctor",
    "events", "health", "image", "index", "install", "kubelets", "labels", "manual", "monitoring",
    "placement",
    "privileges", "quickstart", "sharing", "troubleshooting", "upgrade", "use",
)  # fmt: skip
PAGES = translated()


def _id(page: Path) -> str:
    return key(page)


@pytest.mark.parametrize("name", MANUAL)
def test_the_manual_is_translated(name: str) -> None:
    assert CHINESE / f"{name}.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_a_translation_has_the_blocks_of_its_original(page: Path) -> None:
    assert original(page).exists(), "it is of no English page"
    assert not (found := list(differences(original(page), page))), "\n".join(["", *found])


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_the_original_has_not_changed_since(page: Path) -> None:
    found = list(changes(original(page), page, recorded().get(key(page), [])))
    assert not found, "\n".join(["", *found, f"translate it, then: {ACCEPT} {key(page)}"])


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_the_links_of_a_translation_lead_somewhere(page: Path) -> None:
    """Or where the original's lead, of which tests/docs says that nothing is there."""
    english = original(page)
    known = {
        (english.parent / link.target.partition("#")[0]).resolve()
        for link in links(english.read_text(encoding="utf-8"))
    }
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists() or target in known, f"{page.name}:{link.line}: {link.target}"
        if anchor:
            there = anchors(target.read_text(encoding="utf-8"))
            assert anchor in there, f"{page.name}:{link.line}: {link.target}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_a_translation_leads_to_its_original_first(page: Path) -> None:
    first = next(link for link in links(page.read_text(encoding="utf-8")))
    assert (page.parent / first.target).resolve() == original(page)
    assert first.line < 5


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_nothing_was_left_in_english(page: Path) -> None:
    for part in parts(page):
        if part.kind in ("code", "table") or re.search(r"[\u4e00-\u9fff]", part.text):
            continue
        words = re.sub(r"(`+).+?\1|\S*[A-Z]\S*|kubelet", " ", part.text)
        assert not re.search(r"[a-z]{3}", words), f"{part}: {part.text}"


# -- the comparison itself --------------------------------------------------------------

LEFT = """# Title

Text of `one` and 2, see [three](a.md).

- an item
  that goes on

```sh
run --fast   # quickly
```

| a | b |
|---|---|
| `x` | 3 |
"""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("run --fast   # quickly", "run --fast  # 很快", ""),
        ("Text of `one` and 2", "两者：2 和 `one`", ""),
        ("- an item\n  that goes on", "- 一项，尚未完", ""),
        ("Text of", "[中文](b.md)\n\nText of", ""),
        ("```sh", "<!-- from somewhere -->\n```sh", ""),
        ("run --fast", "run --slow", "English has 'run --fast', Chinese 'run --slow'"),
        ("run --fast   # quickly\n", "", "English has 'run --fast', Chinese '```'"),
        ("`one`", "`two`", "names only in English {'one'}, only in Chinese {'two'}"),
        ("and 2,", "and 5,", "numbers only in English {'2'}, only in Chinese {'5'}"),
        ("a.md", "b.md", "b.md"),
        ("# Title", "## Title", "is heading 1"),
        ("- an item\n  that goes on\n", "", "is item"),
        ("- an item\n  that", "- an item\n- that", "is code"),
        ("| `x` | 3 |\n", "", "row 3 has not the same cells"),
        ("| `x` | 3 |", "| `x` | 4 |", "row 3: numbers"),
        ("| `x` | 3 |\n", "| `x` | 3 |\n\n更多\n", "that the other page has not: 更多"),
    ],
)
def test_a_difference_is_found_and_named(tmp_path: Path, old: str, new: str, found: str) -> None:
    english, chinese = tmp_path / "page.md", tmp_path / "other.md"
    english.write_text(LEFT, encoding="utf-8")
    assert old in LEFT
    chinese.write_text(LEFT.replace(old, new), encoding="utf-8")
    told = list(differences(english, chinese))
    assert bool(told) == bool(found), told
    assert not found or (found in told[0] and re.search(r"/(page|other)\.md:\d", told[0]))


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("- an item\n  that goes on", "- an item that\n  goes on", []),
        ("an item", "another item", ["page.md:5: changed since it was translated, see"]),
        ("run", "walk", ["page.md:8: changed since it was translated, see"]),
        ("- an item\n  that goes on\n\n", "", ["page.md:5: a block before it is gone"]),
        ("- an item", "More.\n\n- an item", ["page.md:5: changed since it was translated"]),
    ],
)
def test_a_changed_original_is_found(tmp_path: Path, old: str, new: str, found: list[str]) -> None:
    english, chinese = tmp_path / "page.md", tmp_path / "other.md"
    english.write_text(LEFT, encoding="utf-8")
    chinese.write_text(LEFT, encoding="utf-8")
    before = digests(english)
    assert old in LEFT
    english.write_text(LEFT.replace(old, new), encoding="utf-8")
    told = list(changes(english, chinese, before))
    assert len(told) == len(found), told
    assert all(line in said for line, said in zip(found, told, strict=True)), told
