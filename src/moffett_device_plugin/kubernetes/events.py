"""Health changes as Events on the Node. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..devices.health.evaluate import RECOVERING
from ..devices.health.reasons import HealthStatus, Reason, Severity
from ..devices.inventory import Device
from ..devices.state import NodeState

COMPONENT = "moffett-device-plugin"
MAX_MESSAGE = 1024  # of an Event, in the API's newer form
_MAX_HOLDERS = 5
_MAX_HELD = 512
_MAX_NAME = 253

UNHEALTHY = "SPUUnhealthy"
HEALTHY = "SPUHealthy"
WARNING = "SPUWarning"
WARNING_CLEARED = "SPUWarningCleared"
#: One event for several devices, when there are more changes than the rate limit allows.
SUMMARY = "SPUHealthChanges"


class Holder(Protocol):
    """A container that holds a device."""

    @property
    def namespace(self) -> str: ...
    @property
    def pod(self) -> str: ...
    @property
    def container(self) -> str: ...


Holders = Mapping[str, Sequence[Holder]]  # by device id


@dataclass(frozen=True, slots=True)
class HealthEvent:
    """One change of one device. A repetition has the same `key`."""

    device: str
    reason: str
    codes: frozenset[str]
    message: str

    @property
    def key(self) -> tuple[str, str, frozenset[str]]:
        return (self.device, self.reason, self.codes)

    @property
    def is_warning(self) -> bool:
        return self.reason in (UNHEALTHY, WARNING)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One Event to write. `count` occurrences between `first` and `last` (Unix time in
    seconds); `name` is that of the Event object, which exists already if `again`."""

    name: str
    reason: str
    message: str
    warning: bool
    first: float
    last: float
    count: int = 1
    again: bool = False


def events_between(
    before: NodeState, after: NodeState, holders: Holders
) -> tuple[HealthEvent, ...]:
    """The health changes from `before` to `after`, in the order of the devices.

    A device that was not in `before` has an event only if it is unhealthy or has a warning.
    """
    events: list[HealthEvent] = []
    for device in after.snapshot.devices:
        health_status = after.health_statuses.get(device.id)
        if health_status is not None:
            was = before.health_statuses.get(device.id)
            events.extend(_of_device(device, was, health_status, holders.get(device.id, ())))
    return tuple(events)


def _of_device(
    device: Device, was: HealthStatus | None, health_status: HealthStatus, holders: Sequence[Holder]
) -> Iterable[HealthEvent]:
    reported = was.codes if was else frozenset()
    causes = _of(health_status, Severity.UNHEALTHY)
    new = [reason for reason in causes if reason.code not in reported and reason.code != RECOVERING]
    if not health_status.healthy and (new or was is None or was.healthy):
        yield _event(device, UNHEALTHY, new or causes, holders)
    elif health_status.healthy and was is not None and not was.healthy:
        cleared = ", ".join(sorted(reason.code for reason in _of(was, Severity.UNHEALTHY)))
        yield HealthEvent(
            device.id, HEALTHY, frozenset(), f"{_name(device)} is healthy again, after {cleared}"
        )
    for reason in _of(health_status, Severity.WARNING):
        if reason.code not in reported:
            yield _event(device, WARNING, [reason], holders)
    for reason in _of(was, Severity.WARNING) if was else ():
        if reason.code not in health_status.codes:
            codes = frozenset({reason.code})
            yield HealthEvent(
                device.id, WARNING_CLEARED, codes, f"{_name(device)}: {reason.code} cleared"
            )


def _of(health_status: HealthStatus, severity: Severity) -> list[Reason]:
    return [reason for reason in health_status.reasons if reason.severity is severity]


def _event(
    device: Device, reason: str, causes: Sequence[Reason], holders: Sequence[Holder]
) -> HealthEvent:
    why = "; ".join(f"{cause.code}: {cause.message}" for cause in causes)
    status = "" if reason == WARNING else " is unhealthy"
    held = _held(holders)
    # The holders are kept whole: a long reason is cut instead.
    text = cut(f"{_name(device)}{status}: {why}", MAX_MESSAGE - len(held)) + held
    return HealthEvent(device.id, reason, frozenset(cause.code for cause in causes), text)


def _name(device: Device) -> str:
    return f"{device.id} (index {device.index}, card {device.card})"


def _held(holders: Sequence[Holder]) -> str:
    if not holders:
        return ""
    named = [f"{h.namespace}/{h.pod} ({h.container})" for h in holders[:_MAX_HOLDERS]]
    more = len(holders) - len(named)
    return cut("; held by " + ", ".join(named), _MAX_HELD) + (f" and {more} more" if more else "")


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(0, length - 3)] + "..."


# -- API objects -----------------------------------------------------------------------


def event_object(occurrence: Occurrence, node: str, namespace: str) -> dict[str, Any]:
    """A core/v1 Event, accepted by every version since 1.10. As in the kubelet's own
    events, the uid is the node's name: `kubectl describe node` finds it by that."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": occurrence.name, "namespace": namespace},
        "involvedObject": {"kind": "Node", "apiVersion": "v1", "name": node, "uid": node},
        "type": "Warning" if occurrence.warning else "Normal",
        "reason": occurrence.reason,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": timestamp(occurrence.first),
        **event_repeat(occurrence),
    }


def event_repeat(occurrence: Occurrence) -> dict[str, Any]:
    """A merge patch with the fields that change when an Event occurs again."""
    return {
        "message": cut(occurrence.message, MAX_MESSAGE),
        "lastTimestamp": timestamp(occurrence.last),
        "count": occurrence.count,
    }


def event_name(node: str, nanoseconds: int) -> str:
    """In the form of client-go, cut to the maximum length of a name."""
    suffix = f".{nanoseconds:x}"
    return node[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix


def timestamp(seconds: float) -> str:
    """The API's form of a time: UTC, whole seconds.

    >>> timestamp(0.9)
    '1970-01-01T00:00:00Z'
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
