"""Answers allocation questions for the monitoring resource."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..devices.state import NodeState
from ..hardware.types import DeviceNode, Mount
from ..resources.pools import ResourcePool
from ..runtime.watchable import Watchable
from .allocate_result import AllocateResult, UnknownDeviceError


class MonitoringAllocator:
    """Any unit gives the nodes of every device, healthy or not, and the control nodes.
    `sola` finds the host's SOLA, and is empty where containers do not get it."""

    def __init__(
        self,
        state: Watchable[NodeState],
        pool: Callable[[], ResourcePool],
        sola: Callable[[], Sequence[Mount] | None] = tuple,
    ) -> None:
        self._state = state
        self._pool = pool
        self._sola = sola

    def prefer(
        self, available: Sequence[str], must_include: Sequence[str], size: int
    ) -> Sequence[str]:
        """All units are alike."""
        return list(dict.fromkeys([*must_include, *sorted(available)]))[:size]

    def allocate(self, ids: Collection[str]) -> AllocateResult:
        """Raises UnknownDeviceError."""
        unknown = sorted(set(ids) - {unit.id for unit in self._pool().devices})
        if unknown:
            raise UnknownDeviceError(f"unknown device {', '.join(unknown)} on this node")
        snapshot = self._state.value.snapshot
        own = [n for d in snapshot.devices if d.present for n in d.function.nodes]
        nodes: dict[str, DeviceNode] = {}
        for node in (*own, *snapshot.control_nodes):
            nodes.setdefault(node.container_path, node)
        return AllocateResult(tuple(nodes.values()), {}, tuple(self._sola() or ()))

    async def check(self, ids: Collection[str]) -> None:
        """Nothing that a sick device could refuse."""
