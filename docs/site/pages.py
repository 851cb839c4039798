"""Markdown as far as the site and the tests of the documents have to understand it:
headings, links and fenced blocks. Pure; no library, so that the tests need none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)\s*$")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.*?)(?: +#+)?$")
_COMMENT = re.compile(r"^ *<!-- (?P<text>.*?) -->$")
_CODE = re.compile(r"(`+)(.+?)\1")
# [text](target) and ![text](target), the text with at most one level of brackets.
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\](?:\([^()]*\))?)*\]\((?P<target>[^()\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language (may be empty), its text without the indent, the line
    of the opening fence (from 1), and the comment that stands right above it."""

    language: str
    text: str
    line: int
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    target: str
    line: int


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines outside of fenced blocks, numbered from 1."""
    closing = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if closing is None and fence:
            closing = fence["ticks"]
        elif closing is not None:
            closing = None if line.strip() == closing else closing
        else:
            yield number, line


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks in their order. An unclosed one ends with the text."""
    opening, comment, indent, inside = None, None, "", list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if opening is None:
            opening = _FENCE.match(line)
            if opening:
                start, indent, inside = number, opening["indent"], []
            elif line.strip():
                found = _COMMENT.match(line)
                comment = found["text"] if found else None
        elif line.strip() == opening["ticks"]:
            yield Block(opening["language"], "\n".join(inside), start, comment)
            opening, comment = None, None
        else:
            inside.append(line.removeprefix(indent))


def links(text: str) -> Iterator[Link]:
    """Links and pictures, without those inside of code."""
    for number, line in prose(text):
        for match in _LINK.finditer(_CODE.sub("", line)):
            yield Link(match["target"], number)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading, and the site too."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors(text: str) -> frozenset[str]:
    """The anchors of all headings; the second of the same name ends in -1."""
    found: dict[str, int] = {}
    for _, line in prose(text):
        heading = _HEADING.match(line)
        if heading:
            words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading["text"])
            name = slug(re.sub(r"[`*]", "", words))
            found[name] = found.get(name, -1) + 1
    return frozenset(
        name if not again else f"{name}-{again}"
        for name, times in found.items()
        for again in range(times + 1)
    )


def for_python_markdown(text: str) -> str:
    """The same page for a renderer that wants more than CommonMark and GitHub do: what is
    inside a list item indented by four, an empty line before a list and between items of
    several paragraphs, and no escape of a `|` in a table's code."""
    out: list[str] = []
    items: list[tuple[int, int]] = []  # of each list we are in: its bullet's column, its text's
    closing = None
    loose = False
    for line in text.splitlines():
        bare = line.lstrip(" ")
        column = len(line) - len(bare)
        if closing is None and bare:
            after_text = bool(out and out[-1].strip())
            bullet = re.match(r"([-*]|\d+\.) +", bare)
            # A line that goes on where the item's first one ended may stand further left.
            if bullet or not after_text:
                while items and column < items[-1][1] and not (bullet and column >= items[-1][0]):
                    items.pop()
            if bullet:
                another = bool(items) and column < items[-1][1]
                if after_text and (loose if another else not items):
                    out.append("")
                if another:
                    items.pop()
                else:
                    loose = False
                items.append((column, column + len(bullet[0])))
                out.append(" " * 4 * (len(items) - 1) + bare)
                continue
            loose = loose or (bool(items) and not after_text)
        kept = line[min(items[-1][1] if items else 0, column) :]
        if closing is None and bare.startswith("|"):
            kept = _CODE.sub(lambda code: code[0].replace(r"\|", "|"), kept)
        out.append((" " * 4 * len(items) + kept) if bare else "")
        fence = _FENCE.match(line)
        if closing is None and fence:
            closing = fence["ticks"]
        elif closing is not None and bare == closing:
            closing = None
    return "\n".join(out) + "\n"
