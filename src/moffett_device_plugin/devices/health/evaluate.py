"""The health of every device of a snapshot.

A device is unhealthy at once; it is healthy again only after the cause has been absent
for the policy's `recovery_seconds`, and for longer after each further fault, so that a flapping
device does not flap in the scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..inventory import Device, Snapshot
from .cordon import Cordon, cordoned
from .flapping import NO_FAULTS, Faults, Record, flapping, seconds_well
from .policy import HealthPolicy
from .reasons import HealthStatus, Reason, Severity
from .rules import AER_SECONDS, OF_NODE, RULES, Context

#: The reason while a cause is gone but not for long enough.
RECOVERING = "recovering"


@dataclass(frozen=True, slots=True)
class HealthHistory:
    """What must be remembered of one device: whether it counts as unhealthy, the
    `causes` that made it so, and since when (seconds of a steady clock) none of
    them has been seen; None while one is there. `faults`: how often it became so."""

    unhealthy: bool = False
    clear_since: float | None = None
    causes: tuple[Reason, ...] = ()
    active: frozenset[str] = frozenset()
    faults: Faults = NO_FAULTS


HealthHistories = Mapping[str, HealthHistory]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Health by device ID; evaluate again at `again_at`, if nothing happens before."""

    health_statuses: Mapping[str, HealthStatus]
    histories: HealthHistories
    again_at: float | None = None


def evaluate(
    snapshot: Snapshot,
    histories: HealthHistories,
    policy: HealthPolicy,
    now: float,
    cordons: Iterable[Cordon] = (),
    epoch: float | None = None,
) -> Evaluation:
    """`now` is in seconds of a clock that never goes back; `epoch` is the Unix time at which
    it was 0, for people."""
    by_operator = cordoned(snapshot.devices, cordons)
    health_statuses: dict[str, HealthStatus] = {}
    next_histories: dict[str, HealthHistory] = {}
    deadlines: list[float] = []
    for device in snapshot.devices:
        before = histories.get(device.id)
        first_seen, before = before is None, before or HealthHistory()
        reasons = reasons_of(device, snapshot, policy, before.active, now)
        causes = tuple(r for r in reasons if r.severity is Severity.UNHEALTHY)
        active = frozenset(reason.code for reason in reasons)
        since = now if before.clear_since is None else before.clear_since
        faults = before.faults
        wait = seconds_well(policy, faults)
        if causes:
            if not (before.unhealthy or first_seen) and _of_device(causes):
                faults = faults.another(now)
            history = HealthHistory(True, None, causes, active, faults)
        elif before.unhealthy and now - since < wait:
            history = HealthHistory(True, since, before.causes, active, faults)
            deadlines.append(since + wait)
            codes = ", ".join(reason.code for reason in before.causes)
            why = (
                flapping(faults, codes, since + wait, epoch)
                if wait > policy.recovery_seconds
                else _recovering(codes, policy)
            )
            reasons = (why, *reasons)
        else:
            history = HealthHistory(active=active, faults=faults)
        if device.fatal_at is not None and device.fatal_at + AER_SECONDS > now:
            deadlines.append(device.fatal_at + AER_SECONDS)
        next_histories[device.id] = history
        healthy = not history.unhealthy
        if cordon := by_operator.get(device.id):
            healthy, reasons = False, (cordon, *reasons)
        health_statuses[device.id] = HealthStatus(healthy, reasons)
    return Evaluation(health_statuses, next_histories, min(deadlines, default=None))


def record_of_history(device: str, history: HealthHistory) -> Record:
    """What is kept of it over a restart."""
    codes = tuple(reason.code for reason in history.causes)
    return Record(device, history.faults, history.unhealthy, history.clear_since, codes)


def history_of(record: Record, policy: HealthPolicy) -> HealthHistory:
    """A device that does not flap is offered at once if it is well at the first look."""
    if seconds_well(policy, record.faults) <= policy.recovery_seconds:
        return HealthHistory(faults=record.faults)
    causes = tuple(Reason(code, "before the plugin's start") for code in record.codes)
    return HealthHistory(record.unhealthy, record.since, causes, faults=record.faults)


def reasons_of(
    device: Device, snapshot: Snapshot, policy: HealthPolicy, active: frozenset[str], now: float
) -> tuple[Reason, ...]:
    """The reasons of all rules that are on and apply to one device."""
    reasons: list[Reason] = []
    for rule in RULES:
        if rule.code in policy.off or not (device.present or rule.of_absent):
            continue
        context = Context(snapshot, policy.limits[rule.code], rule.code in active, now)
        message = rule.check(device, context)
        if message is not None:
            severity = Severity.WARNING if rule.code in policy.warn else rule.severity
            reasons.append(Reason(rule.code, message, severity))
    return tuple(reasons)


def _of_device(causes: Iterable[Reason]) -> bool:
    """Whether one of them is the device's own, and not of the whole node."""
    return any(reason.code not in OF_NODE for reason in causes)


def _recovering(codes: str, policy: HealthPolicy) -> Reason:
    return Reason(
        RECOVERING,
        f"{codes} is over; healthy when it stays so for {policy.recovery_seconds:g} s",
    )
