"""Devices that an operator takes out of service. Pure.

A cordoned device is not offered. A pod that has it keeps it, as on a node that is cordoned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ...hardware.pci import sysfs_bus_id
from ..cards import CARD_PREFIX, cards_of
from ..inventory import Device
from .reasons import HealthStatus, Reason, Severity

CORDONED = "cordoned"
#: In place of an ID: every device of the node.
ALL = "all"
REMEDY = "take the cordon away where it was made: uncordon, the configuration, or the annotation"


@dataclass(frozen=True, slots=True)
class Cordon:
    """`target`: the ID of a device, of a card for all of its devices, or ALL. `by`: what made it,
    for people."""

    target: str
    by: str
    reason: str = ""


def parse_target(text: str) -> str | None:
    """The ID of a device or a card as the plugin writes it, None for anything else.

    >>> parse_target("card-34:00.0")
    'card-0000:34:00.0'
    """
    text = text.strip()
    if text == ALL:
        return ALL
    bus_id = sysfs_bus_id(text.removeprefix(CARD_PREFIX))
    if bus_id is None:
        return None
    return (CARD_PREFIX if text.startswith(CARD_PREFIX) else "") + bus_id


def parse_targets(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The targets in a list with commas, and what is none of them."""
    items = [part.strip() for part in text.split(",") if part.strip()]
    targets = {item: parse_target(item) for item in items}
    wrong = tuple(item for item, target in targets.items() if target is None)
    return tuple(dict.fromkeys(t for t in targets.values() if t is not None)), wrong


def cordoned(devices: Collection[Device], cordons: Iterable[Cordon]) -> Mapping[str, Reason]:
    """The reason of each cordoned device, by its ID: who made the cordons, and why."""
    by_target: dict[str, list[Cordon]] = {}
    for cordon in cordons:
        by_target.setdefault(cordon.target, []).append(cordon)
    if not by_target:
        return {}
    found: dict[str, Reason] = {}
    for card in cards_of(devices):
        of_card = by_target.get(card.id, [])
        for device in card.devices:
            if ours := by_target.get(device.id, []) + of_card + by_target.get(ALL, []):
                found[device.id] = Reason(CORDONED, "; ".join(map(_why, ours)))
    return found


def without_device(devices: Collection[Device], cordons: Iterable[Cordon]) -> tuple[Cordon, ...]:
    """Cordons of what this node does not have."""
    known = {ALL} | {device.id for device in devices} | {card.id for card in cards_of(devices)}
    return tuple(cordon for cordon in cordons if cordon.target not in known)


def uncordoned(status: HealthStatus) -> HealthStatus:
    """The status without its cordon."""
    rest = tuple(reason for reason in status.reasons if reason.code != CORDONED)
    if len(rest) == len(status.reasons):
        return status
    healthy = all(reason.severity is not Severity.UNHEALTHY for reason in rest)
    return HealthStatus(healthy, rest)


def _why(cordon: Cordon) -> str:
    return f"by {cordon.by}" + (f": {cordon.reason}" if cordon.reason else "")
