"""The verdict on each device, with its reasons, as the daemon would judge it now."""

from __future__ import annotations

from collections.abc import Iterable

from ..health.reasons import Reason, Severity
from .bus import NO_CARDS
from .findings import Finding, bad, count, doubt, good, skipped, some
from .site import Site

#: What to do about each reason; the words of docs/health.md.
REMEDIES = {
    "bus-gone": "nothing while a card reboots; else look at the kernel's log and the slot",
    "config-unreadable": "reboot the card (mx-smi reboot -i N)",
    "no-driver": "load the driver; look at the kernel's log",
    "no-device-node": "load the driver; look at udev and the kernel's log",
    "firmware-not-loaded": "wait for mx-daemon (about 20 s after boot); then its log",
    "sola-too-old": "upgrade the SOLA Toolkit",
    "ecc-uncorrected": "reboot the card; if it comes back, replace it",
    "aer-fatal": "reboot the card; look at slot and riser",
    "over-temperature": "look at the airflow",
    "link-degraded": "reseat the card",
    "ecc-corrected": "watch it",
    "mx-smi-unresponsive": "run mx-smi by hand",
    "recovering": "wait",
}
_OTHER = "see docs/health.md"


def verdicts(site: Site) -> Iterable[Finding]:
    devices = site.state.snapshot.devices
    if not devices:
        return [skipped(NO_CARDS)]
    affected: dict[Reason, list[str]] = {}  # one line for what all devices suffer from
    for device in devices:
        for reason in site.state.verdicts[device.id].reasons:
            affected.setdefault(reason, []).append(device.id)
    findings: list[Finding] = []
    for reason, ids in affected.items():
        make = bad if reason.severity is Severity.UNHEALTHY else doubt
        remedy = REMEDIES.get(reason.code, _OTHER)
        findings.append(make(f"{reason.code}: {reason.message}", remedy, some(ids)))
    healthy = sum(site.state.healthy(device.id) for device in devices)
    if findings:
        return findings
    return [good(f"{count(healthy, 'device')} healthy, of {len(devices)}")]
