"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["pass", "fail", "info", "skip"]
LEVELS: tuple[Level, ...] = ("pass", "fail", "info", "skip")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`measured_ms` is the time that the detail speaks of, if it speaks of one."""

    level: Level
    detail: str
    measured_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One check's outcome, and how long the whole check took."""

    check: str
    subject: str
    level: Level
    detail: str
    measured_ms: float | None
    took_ms: float


class FailedError(Exception):
    """The plugin broke the rule; the text says how."""


class SkippedError(Exception):
    """There was nothing to check; the text says why."""


class NotReadyError(Exception):
    """There is no registered plugin to check."""


class ExitedError(Exception):
    """The plugin's process ended while something else was awaited."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the plugin ended ({ending(code)})")
        self.code = code


def ending(code: int) -> str:
    """
    >>> ending(-15), ending(1)
    ('signal 15', 'code 1')
    """
    return f"signal {-code}" if code < 0 else f"code {code}"


def passed(detail: str = "", measured_ms: float | None = None) -> Outcome:
    return Outcome("pass", detail, measured_ms)


def reported(detail: str, measured_ms: float | None = None) -> Outcome:
    """For what the API leaves open."""
    return Outcome("info", detail, measured_ms)


def plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
