"""What a check has to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .context import Context


class Level(StrEnum):
    PASS = "pass"  # noqa: S105  (no password)
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` is one sentence for people; `remedy` says what to do about it, and is
    empty where there is nothing to do. `check` never changes its meaning; `subject` is
    the device, socket or the like that it is about, when it is about one of several."""

    level: Level
    found: str
    remedy: str = ""
    subject: str = ""
    check: str = ""
    layer: str = ""


def ok(found: str, subject: str = "") -> Finding:
    return Finding(Level.PASS, found, subject=subject)


def warn(found: str, remedy: str, subject: str = "") -> Finding:
    return Finding(Level.WARN, found, remedy, subject)


def fail(found: str, remedy: str, subject: str = "") -> Finding:
    return Finding(Level.FAIL, found, remedy, subject)


def skip(why: str, remedy: str = "", subject: str = "") -> Finding:
    return Finding(Level.SKIP, why, remedy, subject)


@dataclass(frozen=True, slots=True)
class Check:
    """`look` yields one finding or more, and must not change anything. `deadline` is in
    seconds; None for the default."""

    name: str
    layer: str
    look: Callable[[Context], Iterable[Finding]]
    deadline: float | None = None


def worst(findings: Iterable[Finding]) -> Level:
    order = (Level.FAIL, Level.WARN, Level.PASS, Level.SKIP)
    levels = {finding.level for finding in findings}
    return next((level for level in order if level in levels), Level.SKIP)


def some(items: Iterable[str], most: int = 4) -> str:
    """`a, b, c, d and 3 more`."""
    listed = list(items)
    rest = len(listed) - most
    if rest <= 0:
        return ", ".join(listed)
    return f"{', '.join(listed[:most])} and {rest} more"


def count(number: int, what: str) -> str:
    """`1 device`, `2 devices`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
