"""Node labels from the state of the node. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..devices.cards import cards_of
from ..devices.state import NodeState

PREFIX = "moffett.ai/spu."
#: All labels; one without a value is not on the node.
LABELS = tuple(
    PREFIX + name
    for name in (
        "present", "count", "cards", "product", "memory", "numa-nodes", "driver-version",
        "sola-version", "firmware-version", "sharing", "replicas",
    )
)  # fmt: skip
_COUNT, _MEMORY = PREFIX + "count", PREFIX + "memory"
_MAX = 63
_ILLEGAL = re.compile(r"[^-A-Za-z0-9_.]+")
_ENDS = "-_."


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """What the labels need from one resource pool.

    `granularity` is "device" or "card"; `replicas` is the number of replicas of each
    device or card, 1 when it is not `shared`.
    """

    name: str
    granularity: str = "device"
    replicas: int = 1
    shared: bool = False


def labels_of(state: NodeState, resources: Sequence[ResourceFacts]) -> Mapping[str, str]:
    """The labels of a node by their full names; none for a node without devices.

    As in the capacity of the node, every device seen since the start counts, healthy or
    not, on the bus or not: the reboot of a card does not change the labels. A value that
    is not known has no label.
    """
    devices = state.snapshot.devices
    if not devices:
        return {}
    sizes = (device.telemetry.memory_total_mib for device in devices if device.telemetry)
    numa_nodes = {d.numa_node for d in devices if d.numa_node is not None and d.numa_node >= 0}
    replicas = {resource.replicas for resource in resources if resource.shared}
    values: dict[str, str | None] = {
        "present": "true",
        "count": str(len(devices)),
        "cards": str(len(cards_of(devices))),
        "product": _joined(device.product for device in devices),
        # The minimum, so that every device of the node has at least this much.
        "memory": _text(min((size for size in sizes if size), default=None)),
        "numa-nodes": _text(len(numa_nodes) or None),
        "driver-version": _joined([state.snapshot.driver_version]),
        "sola-version": _joined([state.snapshot.sola_version]),
        "firmware-version": _joined(device.firmware_version for device in devices),
        "sharing": "time-slicing" if replicas else "none",
        "replicas": _text(replicas.pop() if len(replicas) == 1 else None),
    }
    return {PREFIX + name: value for name, value in values.items() if value is not None}


def still_true(before: Mapping[str, str], after: Mapping[str, str]) -> Mapping[str, str]:
    """`after`, with the memory of `before` if `after` has none and the number of devices is
    the same: mx-smi reports no memory while a card reboots."""
    if _MEMORY not in before or _MEMORY in after or before[_COUNT] != after.get(_COUNT):
        return after
    return {**after, _MEMORY: before[_MEMORY]}


def legal(text: str) -> str | None:
    """The text as a label value: at most 63 characters, letters, digits and -_. inside, a
    letter or digit at both ends; None if nothing valid remains.

    >>> legal(" 4X08 (beta)")
    '4X08-beta'
    """
    return _ILLEGAL.sub("-", text).strip(_ENDS)[:_MAX].rstrip(_ENDS) or None


def _joined(texts: Iterable[str | None]) -> str | None:
    """The distinct values, sorted and joined: `S30_S4`."""
    known = {value for text in texts if text is not None and (value := legal(text))}
    return legal("_".join(sorted(known)))


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
