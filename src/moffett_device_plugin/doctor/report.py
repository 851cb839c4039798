"""Findings as people and programs read them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..runtime.sanitize import sanitize
from .findings import Finding, Level, count

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {Level.PASS: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.SKIP: "dim"}


def line(finding: Finding) -> str:
    """One line: level, check, subject, what was found, and what to do.

    `fail  driver  0000:36:00.0: no driver is bound to it -> load the driver`
    """
    subject = f"{finding.subject}: " if finding.subject else ""
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    text = f"{finding.level.value:<4}  {finding.check:<16}  {subject}{finding.found}{remedy}"
    return sanitize(" ".join(text.splitlines()))


def summary(findings: Iterable[Finding]) -> str:
    levels = Counter(finding.level for finding in findings)
    words = {
        Level.PASS: f"{levels[Level.PASS]} passed",
        Level.WARN: count(levels[Level.WARN], "warning"),
        Level.FAIL: f"{levels[Level.FAIL]} failed",
        Level.SKIP: f"{levels[Level.SKIP]} skipped",
    }
    return ", ".join(words.values())


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps(
        {
            "ok": not any(finding.level is Level.FAIL for finding in findings),
            "findings": [described(finding) for finding in findings],
        },
        indent=2,
        ensure_ascii=False,
    )


def described(finding: Finding) -> dict[str, Any]:
    return {
        "layer": finding.layer,
        "check": finding.check,
        "level": finding.level.value,
        "subject": finding.subject,
        "found": finding.found,
        "remedy": finding.remedy,
    }


def draw(findings: Iterator[Finding], console: Console) -> list[Finding]:
    """Layer by layer on a terminal, each finding as soon as it is there."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    drawn: list[Finding] = []
    for layer, group in groupby(findings, key=lambda finding: finding.layer):
        console.print(Text(layer, style="bold cyan"))
        for finding in group:
            drawn.append(finding)
            text = Text()
            if finding.subject:
                text.append(f"{sanitize(finding.subject)}: ", style="cyan")
            text.append("\n".join(map(sanitize, finding.found.splitlines())))
            if finding.remedy:
                text.append(f"\n→ {sanitize(finding.remedy)}", style="dim italic")
            row = Table.grid(padding=(0, 2))
            row.add_column(width=4)
            row.add_column(width=16, no_wrap=True)
            row.add_column(overflow="fold")
            level = Text(finding.level.value, style=COLOURS[finding.level])
            row.add_row(level, finding.check, text)
            console.print(Padding(row, (0, 0, 0, 2)))
    return drawn
