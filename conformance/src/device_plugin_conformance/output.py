"""What a person sees: the list of checks, and each result as it comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from .checks import Check, name_of, rule_of, subject_of
from .outcome import Level, Result

_COLOURS: Mapping[Level, str] = {"pass": "green", "fail": "red", "info": "cyan", "skip": "yellow"}


def describe(checks: Sequence[Check]) -> list[dict[str, str]]:
    """Name, subject and rule of each check."""
    return [
        {"check": name_of(check), "subject": subject_of(check), "rule": rule_of(check)}
        for check in checks
    ]


def lines(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows of `describe`, grouped by subject."""
    text, subject = [], ""
    for row in rows:
        if row["subject"] != subject:
            subject = row["subject"]
            text.append(f"{subject}:")
        text.append(f"  {row['check']}\n      {row['rule']}")
    return "\n".join(text)


@contextmanager
def progress(
    count: int, *, quiet: bool
) -> Iterator[tuple[Callable[[str], object], Callable[[Result], object]]]:
    """Two functions, for the start of a check (its name) and for its result, which is
    printed; on a terminal with colours, and with the check that runs now."""
    if quiet:
        yield (lambda _: None), (lambda _: None)
        return
    if not sys.stdout.isatty():
        yield (lambda _: None), (lambda result: print(_line(result), flush=True))
        return
    console = Console(highlight=False)
    done = 0
    with console.status("") as status:

        def started(name: str) -> None:
            status.update(f"[dim]{done + 1} of {count}:[/] {name}")

        def finished(result: Result) -> None:
            nonlocal done
            done += 1
            colour = _COLOURS[result.level]
            console.print(
                f"[{colour}]{result.level}[/]  {result.check:<29}[dim]{_took(result):>12}[/]  "
                + escape(result.detail),
                soft_wrap=True,
            )

        yield started, finished


def _line(result: Result) -> str:
    detail = " ".join(result.detail.split())
    return f"{result.level}  {result.check:<29}{_took(result):>12}  {detail}"


def _took(result: Result) -> str:
    return "" if result.measured_ms is None else f"{result.measured_ms:.1f} ms"
