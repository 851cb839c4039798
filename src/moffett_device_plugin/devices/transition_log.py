"""Logs what changed between two states of the node, once for each change.

What happens to more devices at a time than a card has is one line. A line that comes
again and again is left out after LINES of them in WINDOW seconds, until it stays away;
then one line says how many there were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .health.reasons import HealthStatus, Severity
from .health.rules import MINIMUM_SOLA, OF_NODE
from .inventory import Device
from .state import NodeState

log = logging.getLogger(__name__)

LINES = 4
WINDOW = 600.0
#: The most devices of one card.
CARD = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log. Lines of one `kind` can be one line for several devices."""

    level: int
    event: str
    fields: dict[str, Any]
    kind: tuple[object, ...] = ()
    device: str | None = None


@dataclass(slots=True)
class _Repeats:
    """The lines of one key: how many in the window that began at `since`."""

    since: float
    lines: int = 0
    left_out: int = 0


@dataclass(slots=True)
class TransitionLog:
    """`clock` is in seconds and never goes back."""

    clock: Callable[[], float]
    _repeats: dict[tuple[object, ...], _Repeats] = field(default_factory=dict)

    def record(self, before: NodeState, after: NodeState) -> None:
        now = self.clock()
        self._forget_what_is_over(now)
        for line in (*_of_node(before, after), *_grouped(_of_devices(before, after))):
            self._write(line, now)

    def _write(self, line: Line, now: float) -> None:
        if line.event == "device-found":
            log.log(line.level, line.event, extra=line.fields)
            return
        key = (line.event, *line.kind, line.device)
        repeats = self._repeats.setdefault(key, _Repeats(now))
        repeats.lines += 1
        if repeats.lines > LINES:
            repeats.left_out += 1
            return
        fields = line.fields
        if repeats.lines == LINES:
            fields = {**fields, "repeats": f"not logged again for {WINDOW:g} s"}
        log.log(line.level, line.event, extra=fields)

    def _forget_what_is_over(self, now: float) -> None:
        for key, repeats in list(self._repeats.items()):
            if now - repeats.since < WINDOW:
                continue
            del self._repeats[key]
            if repeats.left_out:
                event, device = key[0], key[-1]
                extra = {"of": event, "device": device, "times": repeats.left_out}
                log.warning("lines-left-out", extra=extra)


def _grouped(lines: Iterator[Line]) -> Iterator[Line]:
    kinds: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        kinds.setdefault((line.event, *line.kind), []).append(line)
    for alike in kinds.values():
        if len(alike) <= CARD or alike[0].event == "device-found":
            yield from alike
            continue
        first = alike[0]
        of_all = {k: v for k, v in first.fields.items() if k not in ("device", "index", "card")}
        devices = [line.device for line in alike]
        yield Line(first.level, first.event, {"devices": devices, **of_all}, first.kind)


# -- devices --------------------------------------------------------------------------


def _of_devices(before: NodeState, after: NodeState) -> Iterator[Line]:
    known = before.snapshot.by_id()
    for device in after.snapshot.devices:
        fields = {"device": device.id, "index": device.index, "card": device.card}
        if device.id not in known:
            yield Line(logging.INFO, "device-found", {**fields, **_found(device)})
        was = before.health_statuses.get(device.id)
        yield from _of_device(fields, was, after.health_statuses[device.id])


def _found(device: Device) -> dict[str, Any]:
    nodes = [node.host_path for node in device.function.nodes]
    return {"product": device.product, "numa_node": device.numa_node, "nodes": nodes}


def _of_device(
    fields: dict[str, Any], was: HealthStatus | None, now: HealthStatus
) -> Iterator[Line]:
    def line(level: int, event: str, **more: Any) -> Line:
        kind = tuple(str(more.get(name)) for name in ("reason", "after"))
        return Line(level, event, {**fields, **more}, kind, fields["device"])

    before = was.codes if was else frozenset()
    new = [reason for reason in now.reasons if reason.code not in before]
    for reason in new:
        if reason.severity is Severity.WARNING and reason.code not in OF_NODE:
            yield line(logging.WARNING, "device-warning", reason=reason.code, text=reason.message)
    causes = [reason for reason in new if reason.severity is Severity.UNHEALTHY]
    if not now.healthy and (causes or was is None or was.healthy):
        reasons = causes or now.reasons
        codes = ",".join(reason.code for reason in reasons)
        text = "; ".join(reason.message for reason in reasons)
        yield line(logging.ERROR, "device-unhealthy", reason=codes, text=text)
    elif now.healthy and was is not None and not was.healthy:
        yield line(logging.INFO, "device-healthy", after=sorted(before))
    for gone in was.reasons if was else ():
        ended = gone.severity is Severity.WARNING and gone.code not in now.codes
        if ended and gone.code not in OF_NODE:
            yield line(logging.INFO, "device-warning-over", reason=gone.code)


# -- the node -------------------------------------------------------------------------


def _of_node(before: NodeState, after: NodeState) -> Iterator[Line]:
    yield from _of_smi(before, after)
    yield from _of_versions(before, after)
    virtual = after.snapshot.virtual_functions
    if virtual and virtual != before.snapshot.virtual_functions:
        effect = "not offered; --virtual-functions true makes them devices"
        fields = {"functions": list(virtual), "effect": effect}
        yield Line(logging.INFO, "virtual-functions-left-out", fields)


def _of_smi(before: NodeState, after: NodeState) -> Iterator[Line]:
    old, new = before.snapshot.smi, after.snapshot.smi
    if new.error is not None and old.error is None:
        effect = "the devices stay as they are, from sysfs alone"
        yield Line(logging.WARNING, "mx-smi-failed", {"error": new.error, "effect": effect})
    elif new.error is None and new.answered and (old.error is not None or not old.answered):
        yield Line(logging.INFO, "mx-smi-answers", {"after_failures": old.runs_failed})
    elif old.present and not new.present:
        yield Line(logging.WARNING, "mx-smi-gone", {"effect": "sysfs alone"})
    if new.bad_rows and new.bad_rows != old.bad_rows:
        effect = "what could be read of them counts"
        yield Line(logging.WARNING, "mx-smi-rows-skipped", {"rows": new.bad_rows, "effect": effect})
    if new.notes and new.notes != old.notes:
        effect = "of the devices that mx-smi does not list nothing is known"
        fields = {"notes": list(new.notes), "effect": effect}
        yield Line(logging.WARNING, "telemetry-incomplete", fields)
    if new.answered and new.refused and new.refused != old.refused:
        effect = "what rests on them is not known"
        fields = {"fields": list(new.refused), "effect": effect}
        yield Line(logging.INFO, "mx-smi-fields-refused", fields)


def _of_versions(before: NodeState, after: NodeState) -> Iterator[Line]:
    old, new = before.snapshot, after.snapshot
    if (old.sola_version, old.driver_version) == (new.sola_version, new.driver_version):
        return
    yield Line(logging.INFO, "versions", {"sola": new.sola_version, "driver": new.driver_version})
    if any("sola-too-old" in status.codes for status in after.health_statuses.values()):
        fields = {
            "installed": new.sola_version,
            "needed": MINIMUM_SOLA,
            "remedy": "upgrade the SOLA Toolkit on this node",
        }
        yield Line(logging.ERROR, "sola-too-old", fields)
