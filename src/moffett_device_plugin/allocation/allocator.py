"""Answers allocation questions from the node's newest state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..inventory import Device
from ..latest import Latest
from ..node import NodeState
from .grant import Grant, grant, why_sick
from .placement import Placement, PlacementError, Policy, place
from .topology import Tree, build_tree


class NodeAllocator:
    """One unit of the resource is one device."""

    def __init__(self, state: Latest[NodeState], policy: Policy = "compact") -> None:
        self._state = state
        self._policy = policy
        self._devices: tuple[Device, ...] | None = None  # what the next two are made of
        self._known: Mapping[str, Device] = {}
        self._tree: Tree | None = None

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        return self.place(available, must, size).ids

    def place(self, available: Sequence[str], must: Sequence[str], size: int) -> Placement:
        """Raises PlacementError, but never for a request that can be met: what is
        unknown or unhealthy among `available` is passed over."""
        state = self._state.value
        sick = sorted(
            i for i in {*available, *must} if i in state.verdicts and not state.healthy(i)
        )
        if set(sick) & set(must):
            raise PlacementError(_because(f"{', '.join(must)} must be in", sick, state))
        usable = [device_id for device_id in available if state.healthy(device_id)]
        self._prepare(state)
        if self._tree is None:
            self._tree = build_tree(state.snapshot.devices)
        try:
            return place(self._tree, usable, must, size, policy=self._policy)
        except PlacementError as error:
            raise PlacementError(_because(str(error), sick, state)) from error

    def grant(self, ids: Sequence[str]) -> Grant:
        state = self._state.value
        self._prepare(state)
        return grant(ids, state, self._known)

    def _prepare(self, state: NodeState) -> None:
        """Makes anew what depends on the devices, once for each change of them."""
        if state.snapshot.devices is not self._devices:
            self._devices = state.snapshot.devices
            self._known = state.snapshot.by_id()
            self._tree = None


def _because(what: str, sick: Sequence[str], state: NodeState) -> str:
    return "; ".join([what, *(why_sick(device_id, state) for device_id in sick)])
