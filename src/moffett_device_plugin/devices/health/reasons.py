"""The health of a device, with its reasons."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    UNHEALTHY = "unhealthy"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` is for machines and never changes its meaning; `message` is for people."""

    code: str
    message: str
    severity: Severity = Severity.UNHEALTHY


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """Whether a device may be given to pods, and the reasons why not, or
    that are warnings."""

    healthy: bool
    reasons: tuple[Reason, ...] = ()

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(reason.code for reason in self.reasons)
