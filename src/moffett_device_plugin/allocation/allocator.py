"""Answers allocation questions from the node's newest state."""

from __future__ import annotations

from collections.abc import Sequence

from ..latest import Latest
from ..node import NodeState
from .grant import Grant, grant
from .placement import Placement, PlacementError, Policy, place
from .topology import build_tree


class NodeAllocator:
    """One unit of the resource is one device."""

    def __init__(self, state: Latest[NodeState], policy: Policy = "compact") -> None:
        self._state = state
        self._policy = policy

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        return self.place(available, must, size).ids

    def place(self, available: Sequence[str], must: Sequence[str], size: int) -> Placement:
        """Raises PlacementError, but never for a request that can be met: what is
        unknown or unhealthy among `available` is passed over."""
        state = self._state.value
        sick = [i for i in must if i in state.verdicts and not state.healthy(i)]
        if sick:
            raise PlacementError(f"device {', '.join(sorted(sick))} must be in and is unhealthy")
        usable = [device_id for device_id in available if state.healthy(device_id)]
        tree = build_tree(state.snapshot.devices)
        return place(tree, usable, must, size, policy=self._policy)

    def grant(self, ids: Sequence[str]) -> Grant:
        return grant(ids, self._state.value)
