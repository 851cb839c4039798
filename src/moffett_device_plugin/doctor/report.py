"""Findings as people and programs read them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..runtime.sanitize import sanitize
from .findings import Finding, Level, count, some

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of a terminal below which a finding's text stands below its name.
NARROW = 60
COLOURS = {Level.PASS: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.SKIP: "dim"}


def line(finding: Finding) -> str:
    """One line: level, check, subjects, what was found, and what to do.

    `fail  health            0000:36:00.0: no-driver: no driver is bound -> load the driver`
    """
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    text = f"{finding.level.value:<4}  {finding.check:<16}  {_about(finding)}"
    return sanitize(" ".join(f"{text}{finding.found}{remedy}".splitlines()))


def _about(finding: Finding) -> str:
    return f"{some(finding.subjects)}: " if finding.subjects else ""


def in_order(findings: Iterable[Finding]) -> Iterator[Finding]:
    """As they come, but those that were skipped at the end: one for each cause."""
    skipped: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.level is Level.SKIP:
            skipped.setdefault((finding.found, finding.remedy), []).append(finding)
        else:
            yield finding
    for first, *more in skipped.values():
        also = f" (also {', '.join(one.check for one in more)})" if more else ""
        yield replace(first, found=first.found + also, layer="skipped")


def summary(findings: Sequence[Finding]) -> tuple[str, list[Finding]]:
    """How many of each level; and, to be shown once more, what failed."""
    levels = Counter(finding.level for finding in findings)
    counts = (
        f"{levels[Level.PASS]} passed, {count(levels[Level.WARN], 'warning')},"
        f" {levels[Level.FAIL]} failed, {levels[Level.SKIP]} skipped"
    )
    return counts, [finding for finding in findings if finding.level is Level.FAIL]


def as_json(findings: Sequence[Finding]) -> str:
    described = [
        {
            "layer": finding.layer,
            "check": finding.check,
            "level": finding.level.value,
            "subjects": finding.subjects,
            "found": finding.found,
            "remedy": finding.remedy,
        }
        for finding in findings
    ]
    healthy = all(finding.level is not Level.FAIL for finding in findings)
    return json.dumps({"ok": healthy, "findings": described}, indent=2, ensure_ascii=False)


class Screen:
    """Findings on a terminal: layer by layer, in colours."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._layer = ""

    def show(self, finding: Finding) -> None:
        from rich.text import Text

        if finding.layer != self._layer:
            self._layer = finding.layer
            self._console.print(Text(finding.layer, style="bold cyan"))
        self._row(finding)

    def show_summary(self, findings: Sequence[Finding]) -> None:
        counts, failed = summary(findings)
        self._console.print(f"\n{counts}")
        for finding in failed:
            self._row(finding)

    def _row(self, finding: Finding) -> None:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        text = Text().append(sanitize(_about(finding)), style="cyan")
        text.append("\n".join(map(sanitize, finding.found.splitlines())))
        if finding.remedy:
            text.append(f"\n→ {sanitize(finding.remedy)}", style="dim italic")
        level = Text(finding.level.value, style=COLOURS[finding.level])
        if self._console.width < NARROW:
            self._console.print(
                Padding(level.append(f"  {finding.check}", "default"), (0, 0, 0, 2))
            )
            self._console.print(Padding(text, (0, 0, 0, 4)))
            return
        row = Table.grid(padding=(0, 2))
        row.add_column(width=4)
        row.add_column(width=16, no_wrap=True)
        row.add_column(overflow="fold")
        row.add_row(level, finding.check, text)
        self._console.print(Padding(row, (0, 0, 0, 2)))
