"""The health of every device of a snapshot.

A device is unhealthy at once; it is healthy again only after the cause has been absent
for the policy's `recovery_seconds`, so that a flapping device does not flap in the
scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..inventory import Device, Snapshot
from .cordon import Cordon, cordoned
from .policy import HealthPolicy
from .reasons import HealthStatus, Reason, Severity
from .rules import AER_SECONDS, RULES, Context

#: The reason while a cause is gone but not for long enough.
RECOVERING = "recovering"


@dataclass(frozen=True, slots=True)
class HealthHistory:
    """What must be remembered of one device: whether it counts as unhealthy, the
    `causes` that made it so, and since when (seconds of a steady clock) none of
    them has been seen; None while one is there."""

    unhealthy: bool = False
    clear_since: float | None = None
    causes: tuple[Reason, ...] = ()
    active: frozenset[str] = frozenset()


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
) -> Evaluation:
    """`now` is in seconds of a clock that never goes back."""
    by_operator = cordoned(snapshot.devices, cordons)
    health_statuses: dict[str, HealthStatus] = {}
    next_histories: dict[str, HealthHistory] = {}
    deadlines: list[float] = []
    for device in snapshot.devices:
        before = histories.get(device.id, HealthHistory())
        reasons = reasons_of(device, snapshot, policy, before.active, now)
        causes = tuple(r for r in reasons if r.severity is Severity.UNHEALTHY)
        active = frozenset(reason.code for reason in reasons)
        since = now if before.clear_since is None else before.clear_since
        if causes:
            history = HealthHistory(True, None, causes, active)
        elif before.unhealthy and now - since < policy.recovery_seconds:
            history = HealthHistory(True, since, before.causes, active)
            deadlines.append(since + policy.recovery_seconds)
            reasons = (_recovering(before, policy), *reasons)
        else:
            history = HealthHistory(active=active)
        if device.fatal_at is not None and device.fatal_at + AER_SECONDS > now:
            deadlines.append(device.fatal_at + AER_SECONDS)
        next_histories[device.id] = history
        healthy = not history.unhealthy
        if cordon := by_operator.get(device.id):
            healthy, reasons = False, (cordon, *reasons)
        health_statuses[device.id] = HealthStatus(healthy, reasons)
    return Evaluation(health_statuses, next_histories, min(deadlines, default=None))


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


def _recovering(history: HealthHistory, policy: HealthPolicy) -> Reason:
    causes = ", ".join(reason.code for reason in history.causes)
    return Reason(
        RECOVERING,
        f"{causes} is over; healthy when it stays so for {policy.recovery_seconds:g} s",
    )
