"""The verdict on every device of a snapshot.

Bad news counts at once; good news only after the cause has been absent for the
policy's `recovery_seconds`, so that a flapping chip does not flap in the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..inventory import Device, Snapshot
from .policy import HealthPolicy
from .reasons import HealthStatus, Reason, Severity
from .rules import RULES, Context

#: Given with the verdict while a cause is gone but not for long enough.
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
    """Verdicts by device id; judge again at `again_at`, if nothing happens before."""

    health_statuses: Mapping[str, HealthStatus]
    histories: HealthHistories
    again_at: float | None = None


def evaluate(
    snapshot: Snapshot, histories: HealthHistories, policy: HealthPolicy, now: float
) -> Evaluation:
    """`now` is in seconds of a clock that never goes back."""
    health_statuses: dict[str, HealthStatus] = {}
    next_memories: dict[str, HealthHistory] = {}
    deadlines: list[float] = []
    for device in snapshot.devices:
        before = histories.get(device.id, HealthHistory())
        reasons = reasons_of(device, snapshot, policy, before.active)
        causes = tuple(r for r in reasons if r.severity is Severity.UNHEALTHY)
        active = frozenset(reason.code for reason in reasons)
        since = now if before.clear_since is None else before.clear_since
        if causes:
            memory = HealthHistory(True, None, causes, active)
        elif before.unhealthy and now - since < policy.recovery_seconds:
            memory = HealthHistory(True, since, before.causes, active)
            deadlines.append(since + policy.recovery_seconds)
            reasons = (_recovering(before, policy), *reasons)
        else:
            memory = HealthHistory(active=active)
        next_memories[device.id] = memory
        health_statuses[device.id] = HealthStatus(not memory.unhealthy, reasons)
    return Evaluation(health_statuses, next_memories, min(deadlines, default=None))


def reasons_of(
    device: Device, snapshot: Snapshot, policy: HealthPolicy, active: frozenset[str]
) -> tuple[Reason, ...]:
    """Everything that the rules which are on say of one device."""
    reasons: list[Reason] = []
    for rule in RULES:
        if rule.code in policy.off or not (device.present or rule.of_absent):
            continue
        context = Context(snapshot, policy.limits[rule.code], rule.code in active)
        message = rule.check(device, context)
        if message is not None:
            reasons.append(Reason(rule.code, message, rule.severity))
    return tuple(reasons)


def _recovering(memory: HealthHistory, policy: HealthPolicy) -> Reason:
    causes = ", ".join(reason.code for reason in memory.causes)
    return Reason(
        RECOVERING,
        f"{causes} is over; healthy when it stays so for {policy.recovery_seconds:g} s",
    )
