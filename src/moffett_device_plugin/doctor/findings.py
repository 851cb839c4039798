"""What a check reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

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
    empty where there is nothing to do. `check` never changes its meaning; `subjects` are
    the devices, sockets or the like that it is about, when it is about some of several."""

    level: Level
    found: str
    remedy: str = ""
    subjects: tuple[str, ...] = ()
    check: str = ""
    layer: str = ""


def ok(found: str, *subjects: str) -> Finding:
    return Finding(Level.PASS, found, subjects=subjects)


def warn(found: str, remedy: str, *subjects: str) -> Finding:
    return Finding(Level.WARN, found, remedy, subjects)


def fail(found: str, remedy: str, *subjects: str) -> Finding:
    return Finding(Level.FAIL, found, remedy, subjects)


def skip(why: str, remedy: str = "", *subjects: str) -> Finding:
    return Finding(Level.SKIP, why, remedy, subjects)


Findings = Finding | Iterable[Finding]


@dataclass(frozen=True, slots=True)
class Check:
    """`look` finds one thing or more, and must not change anything. `deadline` is in
    seconds. `needs`: it is skipped on a node without devices, or whose devices have no
    nodes because they are simulated, or without the kubelet's directory."""

    name: str
    layer: str
    look: Callable[[Context], Findings]
    deadline: float = 5.0
    needs: tuple[Literal["devices", "nodes", "kubelet-dir"], ...] = ()


def folded(findings: Iterable[Finding]) -> Sequence[Finding]:
    """One finding for each cause, with all its subjects, in the order of the first."""
    subjects: dict[Finding, tuple[str, ...]] = {}
    for finding in findings:
        cause = replace(finding, subjects=())
        subjects[cause] = subjects.get(cause, ()) + finding.subjects
    return [replace(cause, subjects=about) for cause, about in subjects.items()]


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
