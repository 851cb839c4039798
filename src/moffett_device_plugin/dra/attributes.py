"""What a chip is to the scheduler: its attributes and capacities. Pure.

Every attribute of ours is always there, with an empty value while it is not known: a
selector that refers to one that is missing on any candidate ends the scheduling of its pod.
The standard ones are left out while they are not known, as their definition demands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..devices.cards import Card
from ..devices.inventory import Device, Snapshot

_LONGEST = 64  # bytes of a string or a version
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII
)
_PCI_ROOT = re.compile(r"pci[0-9a-f]{4,}:[0-9a-f]{2}")
UNKNOWN_VERSION = "0.0.0"

Attributes = Mapping[str, Mapping[str, Any]]


def attributes(device: Device, card: Card, snapshot: Snapshot) -> Attributes:
    """By name; those without a domain are the driver's own."""
    found: dict[str, Mapping[str, Any]] = {
        "type": {"string": "chip"},
        "card": {"string": _text(card.id)},
        "chips": {"int": len(card.devices)},
        "product": {"string": _text(device.product)},
        "serial": {"string": _text(device.serial)},
        "uuid": {"string": _text(device.uuid)},
        "board": {"string": _text(device.board)},
        "firmware": {"string": _text(device.firmware_version)},
        "cores": {"int": device.cores or 0},
        "sola": {"version": version(snapshot.sola_version)},
        "driver": {"version": version(snapshot.driver_version)},
        "resource.kubernetes.io/pciBusID": {"string": _text(device.function.bus_id)},
    }
    roots = device.function.ancestors[:1]
    if roots and _PCI_ROOT.fullmatch(roots[0]):
        found["resource.kubernetes.io/pcieRoot"] = {"string": roots[0]}
    if device.numa_node is not None:
        found["resource.kubernetes.io/numaNode"] = {"int": device.numa_node}
    return found


def capacity(device: Device) -> Mapping[str, Mapping[str, str]]:
    """In the server's own spelling; 0 while it is not known, as a selector may refer to it."""
    total = None if device.telemetry is None else device.telemetry.memory_total_mib
    return {
        "memory": {"value": quantity_of_mib(total or 0)},
        "cores": {"value": str(device.cores or 0)},
    }


def version(text: str | None) -> str:
    """As semver 2.0.0 has it.

    >>> version("3.5.3"), version("3.6"), version(None)
    ('3.5.3', '0.0.0', '0.0.0')
    """
    valid = text is not None and len(text) <= _LONGEST and _SEMVER.fullmatch(text)
    return text if valid and text is not None else UNKNOWN_VERSION


def quantity_of_mib(mib: int) -> str:
    """As the API server writes it.

    >>> quantity_of_mib(20480), quantity_of_mib(15996), quantity_of_mib(0)
    ('20Gi', '15996Mi', '0')
    """
    if not mib:
        return "0"
    for suffix in ("Mi", "Gi"):
        if mib % 1024:
            return f"{mib}{suffix}"
        mib //= 1024
    return f"{mib}Ti"


def _text(value: str | None) -> str:
    return (value or "").encode(errors="replace")[:_LONGEST].decode(errors="ignore")
