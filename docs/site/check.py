"""Checks a built site as a browser would see it: every link and anchor of every page leads
somewhere, and nothing is loaded from another host.

    python docs/site/check.py build/site
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser loads by itself, by tag and attribute. A link is loaded by its `rel`.
LOADED = {
    ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data"),
    ("video", "src"), ("audio", "src"), ("embed", "src"), ("use", "href"),
}  # fmt: skip
RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


@dataclass
class Seen:
    """What one page has: its anchors, its links, and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.seen.anchors |= {values[name] for name in ("id", "name") if name in values}
        relations = set(values.get("rel", "").split())
        for name, value in values.items():
            if (tag, name) in LOADED or (
                tag == "link" and name == "href" and relations & RELATIONS
            ):
                self.seen.loaded.append(value)
            if name in ("href", "src"):
                self.seen.links.append(value)
            if name == "srcset":
                self.seen.loaded += [part.split()[0] for part in value.split(",")]


def read(page: Path) -> Seen:
    reader = Reader()
    reader.feed(page.read_text())
    return reader.seen


def problems(site: Path) -> list[str]:
    site = site.resolve()
    pages = {page: read(page) for page in sorted(site.rglob("*.html"))}
    found: list[str] = []
    for page, seen in pages.items():
        name = page.relative_to(site)
        found += [f"{name}: loads {url}" for url in seen.loaded if urlsplit(url).netloc]
        if name.name == "404.html":  # its links are from the root of a server
            continue
        for link in seen.links:
            found += [f"{name}: {link} {why}" for why in _wrong(link, page, pages)]
    for style in sorted(site.rglob("*.css")):
        text = re.sub(r"/\*.*?\*/", "", style.read_text(), flags=re.DOTALL)
        urls = re.findall(r"(?:url\(|@import)\s*[\"']?(https?:[^\"')\s]+|//[^\"')\s]+)", text)
        found += [f"{style.relative_to(site)}: loads {url}" for url in urls]
    return found


def _wrong(link: str, page: Path, pages: dict[Path, Seen]) -> list[str]:
    url = urlsplit(link)
    if url.scheme or url.netloc:
        return []
    target = (page.parent / unquote(url.path)).resolve() if url.path else page
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return ["leads nowhere"]
    anchor = unquote(url.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return ["has no such anchor"]
    return []


def main() -> int:
    wrong = problems(Path(sys.argv[1]))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
