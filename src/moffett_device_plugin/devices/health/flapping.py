"""Devices that fail again and again: how long each must be well before it is offered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .policy import HealthPolicy
from .reasons import Reason

#: The reason in place of `recovering` after more than one fault in WINDOW.
FLAPPING = "flapping"
REMEDY = "look for what its faults have in common; `uncordon` offers it at once"
#: Seconds without a fault after which its faults are forgotten.
WINDOW = 86_400.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How often a device that was offered became unhealthy, each time less than WINDOW after
    the time before, and when it last did (seconds of the caller's clock)."""

    count: int = 0
    last: float = 0.0

    def another(self, now: float) -> Faults:
        return Faults(self.count + 1 if self.count and now - self.last < WINDOW else 1, now)


NO_FAULTS = Faults()


def seconds_well(policy: HealthPolicy, faults: Faults) -> float:
    """How long the cause must be gone: longer with each fault."""
    if faults.count < 2 or not policy.flapping_seconds:
        return policy.recovery_seconds
    step = min(faults.count - 2, len(policy.flapping_seconds) - 1)
    return max(policy.recovery_seconds, policy.flapping_seconds[step])


def flapping(faults: Faults, codes: str, at: float, epoch: float | None) -> Reason:
    """`at` is when it is offered again; `epoch` is the Unix time at which the clock was 0."""
    message = f"{codes} is over; {faults.count} faults, each within a day of the one before:"
    if epoch is None:
        return Reason(FLAPPING, f"{message} it has to be well for longer")
    return Reason(FLAPPING, f"{message} offered again at {_time(epoch + at)} if it stays well")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(round(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- over a restart of the plugin ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one device. `since`: from when on it has been well; None while it is
    not, or is offered. Times are of the monitor's clock."""

    device: str
    faults: Faults
    unhealthy: bool = False
    since: float | None = None
    codes: tuple[str, ...] = ()

    def item(self, epoch: float) -> Mapping[str, Any]:
        """As JSON has it, with Unix times."""
        return {
            "id": self.device,
            "faults": self.faults.count,
            "last": round(self.faults.last + epoch),
            "unhealthy": self.unhealthy,
            "since": None if self.since is None else round(self.since + epoch),
            "codes": list(self.codes),
        }


def record_of(item: Mapping[str, Any], epoch: float, now: float) -> Record | None:
    """The record of a JSON object, None if it is none. A time in the future counts as now."""
    device, count, last = item.get("id"), item.get("faults"), item.get("last")
    since, codes = item.get("since"), item.get("codes")
    if not (isinstance(device, str) and type(count) is int and isinstance(last, int | float)):
        return None
    if count < 1 or not isinstance(codes, list) or not all(isinstance(c, str) for c in codes):
        return None
    well = min(since - epoch, now) if isinstance(since, int | float) else None
    faults = Faults(min(count, 1_000_000), min(last - epoch, now))
    return Record(device, faults, item.get("unhealthy") is True, well, tuple(codes))
