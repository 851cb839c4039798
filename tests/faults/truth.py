"""What the kubelet's list has to say, given what is true of the machine. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .machine import Chip

REPLICAS = 2


class Expect(Enum):
    """Of one unit. ANY where more than one answer is right."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    GONE = "Unhealthy, or not listed"
    ANY = "anything"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a configuration makes of the node: one name for all its units."""

    resource: str
    cards: bool = False
    shared: bool = False
    ecc_counts: bool = True

    def unit_of(self, unit_id: str) -> str:
        """The device or card that an id stands for, without its replica."""
        return unit_id.partition("::")[0]


#: Resource -> unit id -> what it has to be.
Expected = Mapping[str, Mapping[str, Expect]]
#: Resource -> unit id -> the health that the kubelet was told.
Listed = Mapping[str, Mapping[str, str]]


def of_chip(chip: Chip, shape: Shape, *, smi_well: bool) -> Expect:
    if not chip.present:
        return Expect.GONE
    if chip.bus_bad:
        return Expect.UNHEALTHY
    if smi_well:
        bad = chip.smi_bad(ecc_counts=shape.ecc_counts)
        return Expect.UNHEALTHY if bad else Expect.HEALTHY
    return Expect.ANY if chip.told_bad else Expect.HEALTHY


def expected(
    chips: Sequence[Chip], shape: Shape, *, smi_well: bool, held: Collection[str] = ()
) -> Expected:
    """`held` are the bus ids of chips that a pod has, or had a moment ago, in another
    form: those may be held back, and need not be."""
    each = {chip.bus_id: of_chip(chip, shape, smi_well=smi_well) for chip in chips}
    for bus_id in held:
        if each[bus_id] is Expect.HEALTHY:
            each[bus_id] = Expect.ANY
    units = _cards(chips, each) if shape.cards else each
    if shape.shared:
        units = {f"{i}::{n}": what for i, what in units.items() for n in range(REPLICAS)}
    return {shape.resource: units}


def _cards(chips: Iterable[Chip], each: Mapping[str, Expect]) -> dict[str, Expect]:
    members: dict[str, list[Chip]] = {}
    for chip in chips:
        members.setdefault(card_id(chip), []).append(chip)
    return {card: _card(on_it, each) for card, on_it in members.items()}


def _card(chips: Sequence[Chip], each: Mapping[str, Expect]) -> Expect:
    whats = {each[chip.bus_id] for chip in chips}
    if whats == {Expect.GONE}:
        return Expect.GONE
    # A chip that was away when the daemon started is not known to belong to the card.
    unhealthy = [c for c in chips if each[c.bus_id] in (Expect.UNHEALTHY, Expect.GONE) and c.seen]
    if unhealthy:
        return Expect.UNHEALTHY
    return Expect.HEALTHY if whats == {Expect.HEALTHY} else Expect.ANY


def card_id(chip: Chip) -> str:
    """By the switch on the card, two levels above the chip."""
    return f"card-{chip.above[-2]}"


def differences(want: Expected, listed: Listed) -> list[str]:
    """One line for each unit that the kubelet has wrong; none when all is well."""
    found: list[str] = []
    for resource, units in want.items():
        told = listed.get(resource, {})
        for unit_id, what in units.items():
            health = told.get(unit_id)
            if not _right(what, health):
                found.append(f"{resource} {unit_id}: {health or 'not listed'}, is {what.value}")
        found += [f"{resource} {unit_id}: unknown" for unit_id in told if unit_id not in units]
    for resource, told in listed.items():
        if resource not in want:
            healthy = [unit_id for unit_id, health in told.items() if health == "Healthy"]
            found += [f"{resource} {unit_id}: no longer offered" for unit_id in healthy]
    return found


def _right(what: Expect, health: str | None) -> bool:
    if what is Expect.ANY:
        return True
    if what is Expect.GONE:
        return health != "Healthy"
    return bool(health == what.value)
