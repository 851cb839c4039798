"""Devices that a pod holds in another form, and so must not be given out in this one. Pure.

The kubelet counts each resource name for itself: a device that moved to another name, or
from devices to cards, looks free to it although a pod has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from .device_ids import REPLICA_MARK, DeviceIds, strip_replica
from .pools import AdvertisedDevice, ResourcePool


class Holder(Protocol):
    @property
    def namespace(self) -> str: ...
    @property
    def pod(self) -> str: ...


#: Resource name -> id of the advertised device -> who holds it; of all vendors' resources.
Holders = Mapping[str, Mapping[str, Sequence[Holder]]]


def mark_conflicts(pool: ResourcePool, holders: Holders, device_ids: DeviceIds) -> ResourcePool:
    """The pool with those devices unhealthy that are held in another form."""
    elsewhere = _held(pool, holders, device_ids)
    if not elsewhere:
        return pool
    return replace(
        pool, devices=tuple(_with_conflict(device, elsewhere) for device in pool.devices)
    )


def mark_claimed(pool: ResourcePool, claimed: Mapping[str, str]) -> ResourcePool:
    """The pool with those devices unhealthy that claims have through DRA: `claimed` has the
    reason of each, by device id."""
    if not claimed:
        return pool
    return replace(pool, devices=tuple(_with_conflict(device, claimed) for device in pool.devices))


def _with_conflict(advertised: AdvertisedDevice, elsewhere: Mapping[str, str]) -> AdvertisedDevice:
    for device_id in advertised.device_ids:
        if device_id in elsewhere:
            held = f"{device_id} is {elsewhere[device_id]}"
            return replace(advertised, healthy=False, held=held)
    return advertised


def _held(pool: ResourcePool, holders: Holders, device_ids: DeviceIds) -> dict[str, str]:
    """Device ids, and who holds each of them as what."""
    own = {device.id for device in pool.devices}
    sharing = pool.resource.sharing
    found: dict[str, str] = {}
    for name, by_id in holders.items():
        for advertised_id, who in by_id.items():
            shared = REPLICA_MARK in advertised_id
            same_form = shared == sharing.shared and strip_replica(advertised_id) in own
            if name == pool.name and same_form:
                continue  # the kubelet counts it
            if shared and sharing.shared:
                continue  # two replicas of a device may have two holders
            for device_id in device_ids.behind(advertised_id):
                for holder in who[:1]:
                    text = f"held by pod {holder.namespace}/{holder.pod} as {name}"
                    found.setdefault(device_id, text)
    return found
