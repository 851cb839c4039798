"""Two pages of the manual, one in each language, side by side: block for block. Pure, but for
reading the pages.

As a program, `.venv/bin/python -m tests.support.translations [PAGE...]`, it records that the
Chinese pages (all, or those of these names) are right for the English ones as they are now.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path

from docs.site.pages import links, slug

ROOT = Path(__file__).resolve().parents[2]
CHINESE = ROOT / "docs/zh-CN"
#: Chinese pages beside their English ones.
BESIDE = ("README.zh-CN.md", "CONTRIBUTING.zh-CN.md")
#: For each Chinese page, digests of the English blocks that it was translated from.
TRANSLATED_FROM = CHINESE / "translated-from.json"
ACCEPT = ".venv/bin/python -m tests.support.translations"
#: The settings' tables have a check of their own: tests/unit/test_reference.py.
_GENERATED = "| in the file |"


@dataclass(frozen=True, slots=True)
class Part:
    """A block of a page: a heading, a paragraph, an item of a list, a table, or code."""

    kind: str
    lines: tuple[str, ...]
    page: Path
    line: int  # the first one's number, from 1

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return f"{_name(self.page)}:{self.line}"


def translated() -> list[Path]:
    """Every Chinese page that there is."""
    return [*(ROOT / name for name in BESIDE), *sorted(CHINESE.glob("*.md"))]


def key(page: Path) -> str:
    """Of a Chinese page: its name in the record, and on the command line."""
    return page.name if page.parent == CHINESE else str(page.relative_to(ROOT))


def original(page: Path) -> Path:
    if page.parent == CHINESE:
        return ROOT / "docs" / page.name
    return page.with_name(page.name.replace(".zh-CN", ""))


def translation(page: Path) -> Path:
    """The Chinese page of an English one; the English one where there is none."""
    chinese = CHINESE / page.name if page.parent == ROOT / "docs" else page.with_suffix(".zh-CN.md")
    return chinese if chinese in translated() else page


def parts(page: Path) -> Iterator[Part]:
    """Without HTML comments, and without the line that leads to the other language."""
    kind, lines, start, fence = "", list[str](), 0, ""
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], 1):
        bare = line.strip()
        if fence:
            lines.append(line)
            if bare != fence:
                continue
            new, fence = "", ""
        elif opening := re.match(r"```+", bare):
            new, fence = "code", opening[0]
        else:
            new = _kind(bare, kind)
        goes_on = new == kind in ("paragraph", "quote", "table") or (
            new == kind == "item" and not _item(bare)
        )
        if not goes_on:
            if kind:
                yield Part(kind, tuple(lines), page, start)
            kind, lines, start = new, [], number
        if new:
            lines.append(line)


def _item(bare: str) -> bool:
    return re.match(r"([-*]|\d+\.) ", bare) is not None


def _kind(bare: str, before: str) -> str:
    """Of a line outside of code; nothing for what separates or is left out."""
    if not bare or re.fullmatch(r"<!--.*-->|\[(English|中文)\]\(\S+\)", bare):
        return ""
    if heading := re.match(r"#+ ", bare):
        return f"heading {len(heading[0]) - 1}"
    if bare.startswith("|"):
        return "table"
    if _item(bare) or before == "item":
        return "item"
    return "quote" if bare.startswith(">") else "paragraph"


def code(part: Part) -> list[str]:
    """What is typed and what is shown, without comments. Of a drawing: its arrows, names
    and numbers, since its words are in the reader's language."""
    if re.search("[►▼]", part.text):
        return sorted(re.findall(r"[►▼]|[\w./-]*[/\d][\w./-]*", part.text, re.ASCII))
    labelled = not part.lines[0].strip().endswith("`")
    comment = r"(^|\s)#(\s.*)?$" if labelled else r"\s\s+# .*$"
    bare = [re.sub(comment, "", line).rstrip() for line in part.lines]
    return [line for line in bare if line]


def names(text: str) -> set[str]:
    """What stands between backticks."""
    return {match[1] for match in re.findall(r"(`+)(.+?)\1", text)}


def numbers(text: str) -> set[str]:
    """Those outside of code and links, without separators of thousands."""
    text = re.sub(r"(`+).+?\1|\]\([^\s()]+\)", " ", text)
    found = re.findall(r"(?<![\w.-])\d[\d.,]*", text, re.ASCII)
    return {number.rstrip(".,").replace(",", "") for number in found}


FACTS: tuple[tuple[str, Callable[[str], set[str]]], ...] = (
    ("names", names),
    ("numbers", numbers),
)


def cells(part: Part) -> list[list[str]]:
    rows = (re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in part.lines)
    return [[cell.strip() for cell in row] for row in rows]


def headings(page: Path) -> list[str]:
    """The anchors of a page's headings, in their order."""
    found = (part.text for part in parts(page) if part.kind.startswith("heading"))
    return [slug(re.sub(r"[`*]", "", text.lstrip("# "))) for text in found]


def targets(part: Part, *, chinese: bool) -> list[str]:
    """Where links lead; those of an English page, where their translations would lead."""
    found: list[str] = []
    for link in links(part.text.replace("\n", " ")):
        path, _, anchor = link.target.partition("#")
        if re.match(r"[a-z]+:", path):
            found.append(link.target)
            continue
        file = (part.page.parent / path).resolve() if path else part.page
        there = file if chinese else translation(file)
        if anchor and there != file and anchor in (places := headings(file)):
            anchor = dict(zip(places, headings(there), strict=False)).get(anchor, anchor)
        found.append(f"{_name(there)}#{anchor}" if anchor else _name(there))
    return sorted(found)


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)


def differences(english: Path, chinese: Path) -> Iterator[str]:
    """What the two pages do not have in common; a line for each, with both places. It ends
    at a block of another kind: what follows cannot be told apart."""
    for left, right in zip_longest(parts(english), parts(chinese)):
        if left is None or right is None:
            longer = left or right
            assert longer is not None
            yield f"{longer}: {longer.kind} that the other page has not: {longer.lines[0]}"
            return
        if left.kind != right.kind:
            yield f"{left} is {left.kind}, {right} {right.kind}: {left.lines[0]!r}"
            return
        yield from (f"{left} and {right}: {text}" for text in _compare(left, right))


def _compare(english: Part, chinese: Part) -> Iterator[str]:
    if english.kind == "code":
        pairs = zip_longest(code(english), code(chinese), fillvalue="nothing")
        for left, right in pairs:
            if left != right:
                yield f"English has {left!r}, Chinese {right!r}"
                return
        return
    wanted, found = targets(english, chinese=False), targets(chinese, chinese=True)
    if wanted != found:
        yield f"English links to {wanted}, Chinese to {found}"
    pieces = [("", english.text, chinese.text)]
    if english.kind == "table":
        rows = list(zip_longest(cells(english), cells(chinese), fillvalue=[]))
        uneven = [row for row, (left, right) in enumerate(rows) if len(left) != len(right)]
        if uneven:
            yield f"row {uneven[0] + 1} has not the same cells"
            return
        pieces = [
            (f"row {row + 1}: ", left, right)
            for row, pair in enumerate(rows)
            for left, right in zip(*pair, strict=True)
        ]
    for where, left, right in pieces:
        for what, facts in FACTS:
            only = facts(left) - facts(right), facts(right) - facts(left)
            if any(only):
                yield f"{where}{what} only in English {only[0]}, only in Chinese {only[1]}"


# -- what the English said when it was translated ---------------------------------------


def digests(page: Path) -> list[str]:
    """One for each block, whatever the length of its lines."""
    return [_digest(part) for part in parts(page)]


def _digest(part: Part) -> str:
    if part.text.startswith(_GENERATED):
        return "generated"
    words = part.text if part.kind == "code" else " ".join(part.text.split())
    return sha256(words.encode()).hexdigest()[:8]


def changes(english: Path, chinese: Path, before: list[str]) -> Iterator[str]:
    """The English blocks that are not those of `before`: a line for each, with the place in
    the Chinese page that stands for it, as long as both pages have the same blocks."""
    if not before:
        yield f"{_name(english)}: nobody said yet that it is translated"
        return
    now, there = list(parts(english)), list(parts(chinese))
    matcher = SequenceMatcher(None, before, [_digest(part) for part in now], autojunk=False)
    for what, _, _, start, end in matcher.get_opcodes():
        if what == "delete":
            place = now[start] if start < len(now) else english.name
            yield f"{place}: a block before it is gone since it was translated"
        elif what != "equal":
            for index in range(start, end):
                stands = f", see {there[index]}" if len(there) == len(now) else ""
                yield f"{now[index]}: changed since it was translated{stands}"


def recorded() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(TRANSLATED_FROM.read_text(encoding="utf-8"))
    return found


def main() -> int:
    pages = [page for page in translated() if not sys.argv[1:] or key(page) in sys.argv[1:]]
    record = recorded() if TRANSLATED_FROM.exists() else {}
    wrong = [line for page in pages for line in differences(original(page), page)]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    record |= {key(page): digests(original(page)) for page in pages}
    names = {key(page) for page in translated()}
    rows = [
        f"{json.dumps(name)}: {json.dumps(record[name])}" for name in sorted(names & record.keys())
    ]
    TRANSLATED_FROM.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
