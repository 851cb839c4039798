"""From the ids that a kubelet knows to the SPU devices behind them. Pure.

An advertised device is a device, a card, or a replica of either. Its id comes from the bus,
so it means the same devices under every resource name, also under one that is no longer
configured, or that excludes them now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ..devices.cards import cards_of
from ..devices.inventory import Device

#: Between the id of a device or card and the number of its replica, as other plugins write it.
REPLICA_MARK = "::"

H = TypeVar("H")


def replica_id(base: str, number: int) -> str:
    return f"{base}{REPLICA_MARK}{number}"


def strip_replica(advertised_id: str) -> str:
    """The id of the device or card that it is, or is a replica of."""
    return advertised_id.partition(REPLICA_MARK)[0]


def replica_number(advertised_id: str) -> int | None:
    """None for a device or card itself, and for what `replica_id` never makes."""
    text = advertised_id.partition(REPLICA_MARK)[2]
    return int(text) if text.isdecimal() and str(int(text)) == text else None


class DeviceIds:
    """The SPU devices behind every id that this node's devices can be advertised by."""

    def __init__(self, devices: Iterable[Device]) -> None:
        devices = tuple(devices)
        self._behind: dict[str, tuple[str, ...]] = {device.id: (device.id,) for device in devices}
        self._behind |= {card.id: tuple(d.id for d in card.devices) for card in cards_of(devices)}

    def behind(self, advertised_id: str) -> tuple[str, ...]:
        """In bus order; empty for an id that is none of this node's."""
        return self._behind.get(strip_replica(advertised_id), ())

    def holders(self, holders: Mapping[str, Mapping[str, Sequence[H]]]) -> dict[str, tuple[H, ...]]:
        """Who holds each device, from who holds each advertised device (resource name ->
        id -> holders): once each, however many replicas they hold."""
        found: dict[str, dict[H, None]] = {}
        for by_id in holders.values():
            for advertised_id, who in by_id.items():
                for device_id in self.behind(advertised_id):
                    found.setdefault(device_id, {}).update(dict.fromkeys(who))
        return {device_id: tuple(who) for device_id, who in found.items()}
