"""The node's labels, from its state. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..devices.cards import cards_of
from ..devices.state import NodeState

PREFIX = "moffett.ai/spu."
#: Every label there can be; one that is not given is not on the node.
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
    """What labels have to know of one advertised resource.

    `granularity` is what one unit of it is: "device" or "card". `replicas` is how
    often each unit is advertised, 1 when it is not `shared`.
    """

    name: str
    granularity: str = "device"
    replicas: int = 1
    shared: bool = False


def labels_of(state: NodeState, resources: Sequence[ResourceFacts]) -> Mapping[str, str]:
    """The labels of a node by their full names; none at all for one without devices.

    Every device that was seen counts, healthy or not and on the bus or not, as in the
    node's capacity: a card that reboots does not change the labels. What is not known
    is left out.
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
        # The least, so that a pod that asks for so much gets it from any of them.
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
    """`after`, with the memory of `before` where the same number of devices has lost it:
    that is among what mx-smi measures, and it measures nothing while a card reboots."""
    if _MEMORY not in before or _MEMORY in after or before[_COUNT] != after.get(_COUNT):
        return after
    return {**after, _MEMORY: before[_MEMORY]}


def legal(text: str) -> str | None:
    """The text as a label's value: 63 characters at most, letters, digits and -_.
    inside, a letter or digit at both ends; None where nothing legal is left.

    >>> legal(" 4X08 (beta)")
    '4X08-beta'
    """
    return _ILLEGAL.sub("-", text).strip(_ENDS)[:_MAX].rstrip(_ENDS) or None


def _joined(texts: Iterable[str | None]) -> str | None:
    """The one value that all share, or each of several once: `S30_S4`."""
    known = {value for text in texts if text is not None and (value := legal(text))}
    return legal("_".join(sorted(known)))


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
