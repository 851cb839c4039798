"""Tells the log what changed between two states of the node, once per change."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .health.reasons import Reason, Severity
from .health.rules import MINIMUM_SOLA
from .inventory import Device
from .state import NodeState

log = logging.getLogger(__name__)


def log_transitions(before: NodeState, after: NodeState) -> None:
    _tell_smi(before, after)
    _tell_versions(before, after)
    known = before.snapshot.by_id()
    for device in after.snapshot.devices:
        _tell_device(known.get(device.id), device, before, after)


def _tell_device(old: Device | None, device: Device, before: NodeState, after: NodeState) -> None:
    fields = {"device": device.id, "index": device.index, "card": device.card}
    health_status = after.health_statuses[device.id]
    if old is None:
        nodes = [node.host_path for node in device.function.nodes]
        found = {**fields, "product": device.product, "numa_node": device.numa_node}
        log.info("device-found", extra={**found, "nodes": nodes})
    was = before.health_statuses.get(device.id)
    told = was.codes if was else frozenset()
    new = [reason for reason in health_status.reasons if reason.code not in told]
    for reason in new:
        if reason.severity is Severity.WARNING:
            told_reason = {"reason": reason.code, "text": reason.message}
            log.warning("device-warning", extra={**fields, **told_reason})
    causes = [reason for reason in new if reason.severity is Severity.UNHEALTHY]
    if not health_status.healthy and (causes or was is None or was.healthy):
        log.error("device-unhealthy", extra={**fields, **_spoken(causes or health_status.reasons)})
    elif health_status.healthy and was is not None and not was.healthy:
        log.info("device-healthy", extra={**fields, "after": sorted(told)})
    if was is not None:
        for gone in was.reasons:
            if gone.severity is Severity.WARNING and gone.code not in health_status.codes:
                log.info("device-warning-over", extra={**fields, "reason": gone.code})


def _spoken(reasons: Iterable[Reason]) -> dict[str, str]:
    reasons = list(reasons)
    return {
        "reason": ",".join(reason.code for reason in reasons),
        "text": "; ".join(reason.message for reason in reasons),
    }


def _tell_smi(before: NodeState, after: NodeState) -> None:
    old, new = before.snapshot.smi, after.snapshot.smi
    if new.error is not None and old.error is None:
        effect = "the devices stay as they are, from sysfs alone"
        log.warning("mx-smi-failed", extra={"error": new.error, "effect": effect})
    elif new.error is None and new.answered and (old.error is not None or not old.answered):
        log.info("mx-smi-answers", extra={"after_failures": old.runs_failed})
    elif old.present and not new.present:
        log.warning("mx-smi-gone", extra={"effect": "sysfs alone"})
    if new.bad_rows and new.bad_rows != old.bad_rows:
        log.warning("mx-smi-rows-skipped", extra={"rows": new.bad_rows})


def _tell_versions(before: NodeState, after: NodeState) -> None:
    old, new = before.snapshot, after.snapshot
    if (old.sola_version, old.driver_version) == (new.sola_version, new.driver_version):
        return
    log.info("versions", extra={"sola": new.sola_version, "driver": new.driver_version})
    if any(
        "sola-too-old" in health_status.codes for health_status in after.health_statuses.values()
    ):
        log.error(
            "sola-too-old",
            extra={
                "installed": new.sola_version,
                "needed": MINIMUM_SOLA,
                "remedy": "upgrade the SOLA Toolkit on this node",
            },
        )
