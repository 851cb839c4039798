"""Units that a pod holds in another form, and so must not be given out in this one. Pure.

The kubelet counts each resource name for itself: a device that moved to another name, or
from devices to cards, looks free to it although a pod has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from ..devices.cards import cards_of
from ..devices.inventory import Device
from .pools import REPLICA_MARK, AdvertisedDevice, ResourcePool, strip_replica


class Holder(Protocol):
    @property
    def namespace(self) -> str: ...
    @property
    def pod(self) -> str: ...


#: Resource name -> unit id -> who holds it; of all vendors' resources.
Holders = Mapping[str, Mapping[str, Sequence[Holder]]]


def mark_conflicts(pool: ResourcePool, holders: Holders, devices: Iterable[Device]) -> ResourcePool:
    """The division with those units unhealthy that are held in another form."""
    elsewhere = _held(pool, holders, devices)
    if not elsewhere:
        return pool
    return replace(
        pool, devices=tuple(_with_conflict(device, elsewhere) for device in pool.devices)
    )


def _with_conflict(unit: AdvertisedDevice, elsewhere: Mapping[str, str]) -> AdvertisedDevice:
    for device_id in unit.device_ids:
        if device_id in elsewhere:
            return replace(unit, healthy=False, held=f"{device_id} is {elsewhere[device_id]}")
    return unit


def _held(pool: ResourcePool, holders: Holders, devices: Iterable[Device]) -> dict[str, str]:
    """Device ids, and who holds each of them as what."""
    cards = {card.id: [device.id for device in card.devices] for card in cards_of(devices)}
    own = {base.id for base in pool.devices}
    sharing = pool.resource.sharing
    found: dict[str, str] = {}
    for name, units in holders.items():
        for unit_id, who in units.items():
            base, shared = strip_replica(unit_id), REPLICA_MARK in unit_id
            if name == pool.name and base in own and shared == sharing.shared:
                continue  # the kubelet knows
            if shared and sharing.shared:
                continue  # two shares of a chip are what sharing is
            for device_id in cards.get(base, [base]):
                for holder in who[:1]:
                    text = f"held by pod {holder.namespace}/{holder.pod} as {name}"
                    found.setdefault(device_id, text)
    return found
