"""Answers allocation questions for one resource from the node's newest state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ..devices.inventory import Device
from ..devices.state import NodeState
from ..hardware.types import Mount
from ..resources.device_ids import strip_replica
from ..resources.device_list_strategy import DeviceListStrategy
from ..resources.pools import AdvertisedDevice, ResourcePool
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
    """`pool` is what the resource is made of now, `device_list_strategy` how containers
    get its devices. `sola` finds the host's SOLA."""

    def __init__(
        self,
        state: Watchable[NodeState],
        pool: Callable[[], ResourcePool],
        device_list_strategy: Callable[[], DeviceListStrategy] = DeviceListStrategy,
        sola: Callable[[], Sequence[Mount] | None] = tuple,
    ) -> None:
        self._state = state
        self._pool = pool
        self._device_list_strategy = device_list_strategy
        self._sola = sola
        self._made_of: tuple[object, object] = (None, None)  # what the next three come from
        self._known: Mapping[str, Device] = {}
        self._advertised: Mapping[str, AdvertisedDevice] = {}
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
        """The choice among devices that are not shared. Raises PlacementError."""
        resource = self._prepared().resource
        usable = self._usable(available, must_include)
        try:
            return place(self._topology(), usable, must_include, size, policy=resource.placement)
        except PlacementError as error:
            raise PlacementError(self._because(str(error), available)) from error

    def allocate(self, ids: Sequence[str]) -> AllocateResult:
        """Raises RefusalError."""
        return self.allocate_by(self._state.value, ids)

    def allocate_by(self, state: NodeState, ids: Sequence[str]) -> AllocateResult:
        """As `allocate`, with the health that `state` has. Raises RefusalError."""
        name = self._prepared().name
        self._check_limit(len(ids), RefusalError)
        self._check_known(ids, UnknownDeviceError)
        asked = [self._advertised[strip_replica(i)] for i in ids]
        held = [device.held for device in asked if device.held]
        if held:
            raise RefusalError("; ".join(dict.fromkeys(held)))
        devices = dict.fromkeys(device_id for device in asked for device_id in device.device_ids)
        device_list_strategy = self._device_list_strategy()
        sola = self._sola() if device_list_strategy.inject_sola else ()
        return build_allocate_result(
            tuple(devices),
            state,
            self._known,
            device_list_strategy,
            sola,
            name,
        )

    # -- what the answers are made from -------------------------------------------

    def _prepared(self) -> ResourcePool:
        """Makes anew what depends on the devices, once for each change of them."""
        pool, snapshot = self._pool(), self._state.value.snapshot
        if self._made_of[0] is not snapshot.devices or self._made_of[1] is not pool:
            self._made_of = snapshot.devices, pool
            self._known = snapshot.by_id()
            self._advertised = {device.id: device for device in pool.devices}
            self._tree = None
        return pool

    def _topology(self) -> Tree:
        if self._tree is None:
            ids = [i for device in self._advertised.values() for i in device.device_ids]
            tree = build_tree([self._known[i] for i in ids if i in self._known])
            if self._made_of[1].resource.granularity == "card":  # type: ignore[attr-defined]
                tree = with_cards(tree, {b.device_ids: b.id for b in self._advertised.values()})
            self._tree = tree
        return self._tree

    def _usable(self, available: Sequence[str], must_include: Collection[str]) -> list[str]:
        unhealthy = [i for i in must_include if self._unhealthy(i)]
        if unhealthy:
            raise PlacementError(self._because(f"{', '.join(must_include)} must be in", unhealthy))
        healthy = {i for i, device in self._advertised.items() if self._healthy(device)}
        return [i for i in available if strip_replica(i) in healthy]

    def _healthy(self, device: AdvertisedDevice) -> bool:
        state = self._state.value
        return not device.held and all(state.healthy(device_id) for device_id in device.device_ids)

    def _unhealthy(self, advertised_id: str) -> bool:
        device = self._advertised.get(strip_replica(advertised_id))
        return device is not None and not self._healthy(device)

    def _because(self, what: str, ids: Collection[str]) -> str:
        """`what`, and what is wrong with those of `ids` that are unhealthy."""
        state = self._state.value
        asked = sorted({strip_replica(i) for i in ids} & self._advertised.keys())
        held = dict.fromkeys(h for i in asked if (h := self._advertised[i].held))
        devices = {
            device_id: None
            for advertised_id in asked
            for device_id in self._advertised[advertised_id].device_ids
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
        pool = self._pool()
        unknown = sorted(
            i for i in ids if strip_replica(i) not in self._advertised or not pool.has_replica(i)
        )
        if unknown:
            raise error(f"unknown device {', '.join(unknown)} on this node")
