"""Links of the documents lead to files and headings that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from docs.site.pages import anchors, links
from tests.support.translations import original

from .documents import ROOT, english, translated

PAGES = [*english(), *translated()]


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    wrong: list[str] = []
    for link in links(page.read_text()):
        path, _, anchor = link.target.partition("#")
        if re.match(r"[a-z]+:", path):
            if not path.startswith(("https://", "mailto:")):
                wrong.append(f"{link.line}: {link.target} is not https")
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            wrong.append(f"{link.line}: {link.target} is not there")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            wrong.append(f"{link.line}: {link.target} has no such heading")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", translated(), ids=_id)
def test_a_chinese_link_to_an_english_page_says_so(page: Path) -> None:
    wrong: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        for match in re.finditer(r"\[([^\]]*)\]\(([^)\s#:]+\.md)[^)]*\)(（英文）)?", line):
            text, target, said = match.groups()
            chinese = (page.parent / target).resolve() in translated()
            if not chinese and text != "English" and "英文" not in text and not said:
                wrong.append(f"{number}: {match[0]}")
    assert not wrong, "\n".join(wrong)


def test_every_page_has_its_place_on_the_site() -> None:
    listed: set[str] = set()
    for section in yaml.safe_load((ROOT / "docs/site/nav.yml").read_text()):
        for titles, content in section.items():
            assert " | " in titles
            if isinstance(content, str):
                pages = (ROOT / "docs" / content).glob("*.md")
                listed |= {page.relative_to(ROOT / "docs").as_posix() for page in pages}
            else:
                listed |= {name for entry in content for name in entry}
    docs = [page for page in english() if ROOT / "docs" in page.parents]
    there = {page.relative_to(ROOT / "docs").as_posix() for page in docs}
    assert not there - listed, "add it to docs/site/nav.yml"


def test_a_translation_is_of_a_page() -> None:
    for page in translated():
        assert original(page).exists(), page


@pytest.mark.parametrize("page", english(), ids=_id)
def test_every_page_has_one_title(page: Path) -> None:
    if page.parent == ROOT / "docs" / "site":
        return
    from docs.site.pages import prose

    titles = [line for _, line in prose(page.read_text()) if line.startswith("# ")]
    assert len(titles) == 1
