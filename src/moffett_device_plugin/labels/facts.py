"""What labels and events have to know of the advertised resources. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ..resources.pools import Division, base_of
from .compute import ResourceFacts

Holder = TypeVar("Holder")


def facts_of(divisions: Iterable[Division]) -> tuple[ResourceFacts, ...]:
    return tuple(
        ResourceFacts(
            division.name,
            division.resource.granularity,
            division.resource.sharing.replicas,
            division.resource.sharing.shared,
        )
        for division in divisions
    )


def holders_by_device(
    divisions: Iterable[Division], holders: Mapping[str, Mapping[str, Sequence[Holder]]]
) -> dict[str, tuple[Holder, ...]]:
    """Who holds each device, from who holds which units (resource name -> unit id ->
    holders): of all of a card whose card is held, of one whose replicas are, once each.

    A pod keeps what it was given under a name that has changed since: units are known
    by their ids, which come from the bus, whatever the name.
    """
    devices = {base.id: base.devices for division in divisions for base in division.bases}
    devices |= {device: (device,) for held in devices.values() for device in held}
    found: dict[str, dict[Holder, None]] = {}
    for units in holders.values():
        for unit_id, who in units.items():
            for device in devices.get(base_of(unit_id), ()):
                found.setdefault(device, {}).update(dict.fromkeys(who))
    return {device: tuple(who) for device, who in found.items()}
