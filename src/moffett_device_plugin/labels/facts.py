"""What labels and events have to know of the advertised resources. Pure."""

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
    """Who holds each device, from who holds which units (resource name -> unit id ->
    holders): of all of a card whose card is held, of one whose replicas are, once each.

    A pod keeps what it was given under a name that has changed since: units are known
    by their ids, which come from the bus, whatever the name.
    """
    devices = {base.id: base.device_ids for pool in pools for base in pool.devices}
    devices |= {device: (device,) for held in devices.values() for device in held}
    found: dict[str, dict[Holder, None]] = {}
    for units in holders.values():
        for unit_id, who in units.items():
            for device in devices.get(strip_replica(unit_id), ()):
                found.setdefault(device, {}).update(dict.fromkeys(who))
    return {device: tuple(who) for device, who in found.items()}
