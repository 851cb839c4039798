"""Answers allocation questions for one resource from the node's newest state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from ..devices.inventory import Device
from ..devices.state import NodeState
from ..hardware.types import Mount
from ..resources.device_list_strategy import DeviceListStrategy
from ..resources.pools import REPLICA_MARK, AdvertisedDevice, ResourcePool, strip_replica
from ..runtime.watchable import Watchable
from .allocate_result import (
    AllocateResult,
    RefusalError,
    UnknownDeviceError,
    build_allocate_result,
    why_unhealthy,
)
from .placement import Placement, PlacementError, place
from .replicas import place_replicas
from .topology import Tree, build_tree, with_cards


class PoolAllocator:
    """`division` is what the resource is made of now, `delivery` how containers get it.
    `sola` finds the host's SOLA; `look` looks at the bus here and now."""

    def __init__(
        self,
        state: Watchable[NodeState],
        pool: Callable[[], ResourcePool],
        device_list_strategy: Callable[[], DeviceListStrategy] = DeviceListStrategy,
        sola: Callable[[], Sequence[Mount] | None] = tuple,
        rescan: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._state = state
        self._pool = pool
        self._delivery = device_list_strategy
        self._sola = sola
        self._look = rescan
        self._made_of: tuple[object, object] = (None, None)  # what the next three come from
        self._known: Mapping[str, Device] = {}
        self._bases: Mapping[str, AdvertisedDevice] = {}
        self._tree: Tree | None = None

    def prefer(
        self, available: Sequence[str], must_include: Sequence[str], size: int
    ) -> Sequence[str]:
        """Raises PlacementError, but never for a request that can be met: what is
        unknown or unhealthy among `available` is passed over."""
        resource = self._prepared().resource
        self._check_limit(size, PlacementError)
        if not resource.sharing.shared:
            return self.place(available, must_include, size).ids
        usable = self._usable(available, must_include)
        self._check_known(must_include, PlacementError)
        try:
            return place_replicas(
                self._topology(), usable, must_include, size,
                replicas=resource.sharing.replicas, policy=resource.placement,
            )  # fmt: skip
        except PlacementError as error:
            raise PlacementError(self._because(str(error), available)) from error

    def place(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Placement:
        """The choice among units that are not shared. Raises PlacementError."""
        resource = self._prepared().resource
        usable = self._usable(available, must_include)
        try:
            return place(self._topology(), usable, must_include, size, policy=resource.placement)
        except PlacementError as error:
            raise PlacementError(self._because(str(error), available)) from error

    def allocate(self, ids: Sequence[str]) -> AllocateResult:
        """Raises RefusalError."""
        name = self._prepared().name
        self._check_limit(len(ids), RefusalError)
        self._check_known(ids, UnknownDeviceError)
        advertised = [self._bases[strip_replica(unit_id)] for unit_id in ids]
        held = [base.held for base in advertised if base.held]
        if held:
            raise RefusalError("; ".join(dict.fromkeys(held)))
        devices = dict.fromkeys(device_id for base in advertised for device_id in base.device_ids)
        device_list_strategy = self._delivery()
        sola = self._sola() if device_list_strategy.inject_sola else ()
        return build_allocate_result(
            tuple(devices), self._state.value, self._known, device_list_strategy, sola, name
        )

    async def check(self, ids: Sequence[str]) -> None:
        """A last look at the devices of a container that is about to start. Raises
        RefusalError when they could not be granted now."""
        if self._look is not None:
            await self._look()
        self.allocate(ids)

    # -- what the answers are made from -------------------------------------------

    def _prepared(self) -> ResourcePool:
        """Makes anew what depends on the devices, once for each change of them."""
        pool, snapshot = self._pool(), self._state.value.snapshot
        if self._made_of[0] is not snapshot.devices or self._made_of[1] is not pool:
            self._made_of = snapshot.devices, pool
            self._known = snapshot.by_id()
            self._bases = {base.id: base for base in pool.devices}
            self._tree = None
        return pool

    def _topology(self) -> Tree:
        if self._tree is None:
            ids = [device_id for base in self._bases.values() for device_id in base.device_ids]
            tree = build_tree([self._known[i] for i in ids if i in self._known])
            if self._made_of[1].resource.granularity == "card":  # type: ignore[attr-defined]
                tree = with_cards(tree, {b.device_ids: b.id for b in self._bases.values()})
            self._tree = tree
        return self._tree

    def _usable(self, available: Sequence[str], must_include: Collection[str]) -> list[str]:
        unhealthy = [unit_id for unit_id in must_include if self._unhealthy(unit_id)]
        if unhealthy:
            raise PlacementError(self._because(f"{', '.join(must_include)} must be in", unhealthy))
        healthy = {i for i, base in self._bases.items() if self._healthy(base)}
        return [unit_id for unit_id in available if strip_replica(unit_id) in healthy]

    def _healthy(self, base: AdvertisedDevice) -> bool:
        state = self._state.value
        return not base.held and all(state.healthy(device_id) for device_id in base.device_ids)

    def _unhealthy(self, unit_id: str) -> bool:
        base = self._bases.get(strip_replica(unit_id))
        return base is not None and not self._healthy(base)

    def _because(self, what: str, ids: Collection[str]) -> str:
        """`what`, and what is wrong with those of `ids` that are sick."""
        state = self._state.value
        known = [base for i in ids if (base := self._bases.get(strip_replica(i))) is not None]
        held = dict.fromkeys(base.held for base in known if base.held)
        devices = {
            device_id: None
            for base_id in sorted({strip_replica(unit_id) for unit_id in ids})
            if self._unhealthy(base_id)
            for device_id in self._bases[base_id].device_ids
            if device_id in state.health_statuses and not state.healthy(device_id)
        }
        return "; ".join([what, *held, *(why_unhealthy(device_id, state) for device_id in devices)])

    def _check_limit(self, size: int, error: type[PlacementError] | type[RefusalError]) -> None:
        pool = self._pool()
        sharing = pool.resource.sharing
        if sharing.most is not None and size > sharing.most:
            setting = (
                "sharing.failRequestsGreaterThanOne is on"
                if sharing.fail_requests_greater_than_one
                else f"sharing.maxPerPod is {sharing.max_per_pod}"
            )
            raise error(f"{size} of {pool.name} were asked for and {setting}")

    def _check_known(
        self, ids: Collection[str], error: type[PlacementError] | type[RefusalError]
    ) -> None:
        """Every id is one that the resource has now."""
        sharing = self._pool().resource.sharing
        unknown = sorted(
            i
            for i in ids
            if strip_replica(i) not in self._bases
            or not _is_one(i, sharing.replicas, sharing.shared)
        )
        if unknown:
            raise error(f"unknown device {', '.join(unknown)} on this node")


def _is_one(unit_id: str, replicas: int, shared: bool) -> bool:
    """Whether the part after the device's own id is what this resource's units have."""
    mark, number = unit_id.partition(REPLICA_MARK)[1:]
    if not shared:
        return not mark
    return number.isdecimal() and str(int(number)) == number and int(number) < replicas
