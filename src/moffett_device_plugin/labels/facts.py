"""What labels and events need from the resource pools. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ..resources.pools import ResourcePool, strip_replica
from .compute import ResourceFacts

Holder = TypeVar("Holder")


def facts_of(pools: Iterable[ResourcePool]) -> tuple[ResourceFacts, ...]:
    return tuple(
        ResourceFacts(
            pool.name,
            pool.resource.granularity,
            pool.resource.sharing.replicas,
            pool.resource.sharing.shared,
        )
        for pool in pools
    )


def holders_by_device(
    pools: Iterable[ResourcePool], holders: Mapping[str, Mapping[str, Sequence[Holder]]]
) -> dict[str, tuple[Holder, ...]]:
    """The holders of each device, from those of the advertised devices (resource name ->
    advertised ID -> holders). A card counts for all its devices, several replicas once.

    The resource name is not used: a pod keeps its devices when the name changes, and the
    IDs come from the bus.
    """
    devices = {each.id: each.device_ids for pool in pools for each in pool.devices}
    devices |= {device: (device,) for held in devices.values() for device in held}
    found: dict[str, dict[Holder, None]] = {}
    for allocated in holders.values():
        for advertised_id, who in allocated.items():
            for device in devices.get(strip_replica(advertised_id), ()):
                found.setdefault(device, {}).update(dict.fromkeys(who))
    return {device: tuple(who) for device, who in found.items()}
