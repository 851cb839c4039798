"""Devices that were just given out through the device plugin API.

The kubelet lists a pod as their holder only once it has admitted it: until then nobody else
knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

#: Seconds after which the kubelet lists the pod, or has not admitted it.
LISTED_AFTER = 30.0


class Grants:
    """`clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._granted: dict[str, tuple[float, str]] = {}  # by device id

    def add(self, resource: str, device_ids: Iterable[str]) -> None:
        now = self._clock()
        self._granted.update(dict.fromkeys(device_ids, (now, resource)))

    def recent(self) -> Mapping[str, str]:
        """The resource that each device was given out as in the last LISTED_AFTER seconds."""
        oldest = self._clock() - LISTED_AFTER
        self._granted = {i: grant for i, grant in self._granted.items() if grant[0] > oldest}
        return {device_id: resource for device_id, (_, resource) in self._granted.items()}
