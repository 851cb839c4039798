"""Which pages there are, and what the blocks of them are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from docs.site.pages import Block, blocks
from tests.support import translations

ROOT = Path(__file__).resolve().parents[2]
#: Below a page's title: where all its outputs are from that say nothing else.
_SOURCE = re.compile(r"^<!-- outputs from: (.*) -->$", re.MULTILINE)
#: All that a comment above a block may say.
MARKS = {"", "output of", "output from", "figure", "after", "cut", "not run", "in", "before"}
#: What may be said of something shown.
KNOWN = {"output of", "output from", "figure"}


def english() -> list[Path]:
    """Every page that this project's readers are led to, but for the translations."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench/README.md"]
    found += [page for page in (ROOT / "docs").rglob("*.md") if "zh-CN" not in page.parts]
    found += [ROOT / "conformance/README.md", *(ROOT / "deploy").rglob("*.md")]
    found += (ROOT / "tests").rglob("README.md")
    return sorted(page for page in found if page.exists())


def translated() -> list[Path]:
    return sorted(translations.translated())


@dataclass(frozen=True, slots=True)
class Shown:
    """A block where it stands. `marks` are the parts of the comment above it."""

    page: Path
    block: Block
    marks: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.block.line}"

    @property
    def commands(self) -> list[Command]:
        return list(commands(self.block))

    @property
    def transcript(self) -> bool:
        return self.block.text.startswith(("$ ", "# podman"))


@dataclass(frozen=True, slots=True)
class Command:
    """One command line, without prompt and line breaks, and what is shown below it."""

    line: str
    output: str = ""


def shown(pages: list[Path] | None = None) -> Iterator[Shown]:
    for page in english() if pages is None else pages:
        text = page.read_text()
        source = _SOURCE.search(text)
        for block in blocks(text):
            found = marks(block.comment)
            it = Shown(page, block, found)
            if source and (it.transcript or not block.language) and not found.keys() & KNOWN:
                it = Shown(page, block, {"output from": source[1]})
            yield it


def marks(comment: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in (comment or "").split("; "):
        key, _, value = part.partition(": ")
        found[key.strip()] = value.strip()
    return found


def commands(block: Block) -> Iterator[Command]:
    """The command lines of an `sh` block or a transcript."""
    prompt = next((p for p in ("$ ", "# ") if block.text.startswith(p)), "")
    if prompt == "# " and block.language == "sh":
        prompt = ""  # a comment
    line, output, heredoc = "", list[str](), None
    for text in block.text.splitlines():
        if heredoc is not None:
            line += f"\n{text}"
            heredoc = None if text.strip() == heredoc else heredoc
        elif line.endswith("\\"):
            line = line[:-1].rstrip() + " " + text.strip()
        elif prompt and not text.startswith(prompt):
            output.append(text)
            continue
        else:
            if line:
                yield Command(line, "\n".join(output))
            line, output = text.removeprefix(prompt).strip(), []
            if line.startswith("#"):
                line = ""
        if "<<" in text:
            heredoc = text.partition("<<")[2].strip("-'\" ").split("'")[0].split()[0]
    if line:
        yield Command(line, "\n".join(output))
