"""The verdict on each device, with its reasons, as the daemon would judge it now."""

from __future__ import annotations

from collections.abc import Iterable

from ..devices.health.evaluate import RECOVERING
from ..devices.health.reasons import Reason, Severity
from ..devices.health.rules import RULES
from .bus import NO_CARDS
from .context import Context
from .findings import Finding, count, fail, ok, skip, some, warn

#: What to do about each reason.
REMEDIES = {rule.code: rule.remedy for rule in RULES} | {RECOVERING: "wait"}


def health_statuses(context: Context) -> Iterable[Finding]:
    devices = context.state.snapshot.devices
    if not devices:
        return [skip(NO_CARDS)]
    affected: dict[Reason, list[str]] = {}  # one line for what all devices suffer from
    for device in devices:
        for reason in context.state.health_statuses[device.id].reasons:
            affected.setdefault(reason, []).append(device.id)
    findings: list[Finding] = []
    for reason, ids in affected.items():
        make = fail if reason.severity is Severity.UNHEALTHY else warn
        remedy = REMEDIES[reason.code]
        findings.append(make(f"{reason.code}: {reason.message}", remedy, some(ids)))
    healthy = sum(context.state.healthy(device.id) for device in devices)
    if findings:
        return findings
    return [ok(f"{count(healthy, 'device')} healthy, of {len(devices)}")]
