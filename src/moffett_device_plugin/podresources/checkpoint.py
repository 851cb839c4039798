"""Which pods hold which devices by the kubelet's own record, which is there also while the
kubelet is not: after a reboot, before it has started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .client import Holder, Holders

#: In place of a namespace: the record knows pods by their uid.
BY_UID = "uid"
_MAX_BYTES = 16 << 20


def read_checkpoint(path: Path) -> Holders:
    """What the file says; nothing where it is missing, unreadable or of another form."""
    try:
        with path.open("rb") as file:
            return holders_in(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}


def holders_in(checkpoint: bytes) -> Holders:
    """Raises ValueError for what is no JSON. Entries of another form are left out: kubelets
    before 1.20 list the devices, later ones list them by NUMA node."""
    held: dict[str, dict[str, tuple[Holder, ...]]] = {}
    entries = _mapping(_mapping(json.loads(checkpoint)).get("Data")).get("PodDeviceEntries")
    for entry in entries if isinstance(entries, list) else ():
        fields = _mapping(entry)
        holder = Holder(BY_UID, str(fields.get("PodUID")), str(fields.get("ContainerName")))
        by_id = held.setdefault(str(fields.get("ResourceName")), {})
        for advertised_id in _texts(fields.get("DeviceIDs")):
            by_id[advertised_id] = (*by_id.get(advertised_id, ()), holder)
    return held


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
