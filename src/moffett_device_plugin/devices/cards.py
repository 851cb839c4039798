"""The devices of a node by the card that they are on. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .inventory import Device

CARD_PREFIX = "card-"


@dataclass(frozen=True, slots=True)
class Card:
    """One card and its devices in bus order.

    `id` is what the kubelet and CDI know it by: "card-" and the bus id of the card's
    own switch, else of its first device. Like a device's id it comes from the bus
    alone, so it holds while mx-smi is silent and while one of the devices is gone.
    """

    id: str
    devices: tuple[Device, ...]


def cards_of(devices: Iterable[Device]) -> tuple[Card, ...]:
    """Cards in the order of their first device; `devices` come in bus order."""
    members: dict[str, list[Device]] = {}
    for device in devices:
        members.setdefault(device.card_id, []).append(device)
    return tuple(Card(_id(on_card), tuple(on_card)) for on_card in members.values())


def _id(devices: list[Device]) -> str:
    switches = {device.function.switch for device in devices}
    switch = switches.pop() if len(switches) == 1 else None
    return CARD_PREFIX + (switch or devices[0].id)
