"""What the kubelet's list must be, given the true state of the machine. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .machine import Device

REPLICAS = 2


class Expect(Enum):
    """Of one advertised device. ANY where more than one answer is right."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    GONE = "Unhealthy, or not listed"
    ANY = "anything"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a configuration advertises: one resource name for the whole node."""

    resource: str
    cards: bool = False
    shared: bool = False
    ecc_counts: bool = True

    def base_id(self, device_id: str) -> str:
        """The device or card that an id stands for, without its replica."""
        return device_id.partition("::")[0]


#: Resource -> id -> what it must be.
Expected = Mapping[str, Mapping[str, Expect]]
#: Resource -> id -> the health in the kubelet's list.
Listed = Mapping[str, Mapping[str, str]]


def of_device(device: Device, shape: Shape, *, smi_ok: bool) -> Expect:
    if not device.present:
        return Expect.GONE
    if device.failed_on_bus:
        return Expect.UNHEALTHY
    if smi_ok:
        bad = device.failed_by_smi(ecc_counts=shape.ecc_counts)
        return Expect.UNHEALTHY if bad else Expect.HEALTHY
    return Expect.ANY if device.reported_failed else Expect.HEALTHY


def expected(
    devices: Sequence[Device], shape: Shape, *, smi_ok: bool, held: Collection[str] = ()
) -> Expected:
    """`held` are the bus IDs of devices that a pod has, or had a moment ago, under another
    name: those may be unhealthy or healthy."""
    each = {device.bus_id: of_device(device, shape, smi_ok=smi_ok) for device in devices}
    for bus_id in held:
        if each[bus_id] is Expect.HEALTHY:
            each[bus_id] = Expect.ANY
    advertised = _cards(devices, each) if shape.cards else each
    if shape.shared:
        advertised = {f"{i}::{n}": what for i, what in advertised.items() for n in range(REPLICAS)}
    return {shape.resource: advertised}


def _cards(devices: Iterable[Device], each: Mapping[str, Expect]) -> dict[str, Expect]:
    members: dict[str, list[Device]] = {}
    for device in devices:
        members.setdefault(card_id(device), []).append(device)
    return {card: _card(on_it, each) for card, on_it in members.items()}


def _card(devices: Sequence[Device], each: Mapping[str, Expect]) -> Expect:
    expectations = {each[device.bus_id] for device in devices}
    if expectations == {Expect.GONE}:
        return Expect.GONE
    # A device that was absent when the daemon started is not known to be on the card.
    unhealthy = [c for c in devices if each[c.bus_id] in (Expect.UNHEALTHY, Expect.GONE) and c.seen]
    if unhealthy:
        return Expect.UNHEALTHY
    return Expect.HEALTHY if expectations == {Expect.HEALTHY} else Expect.ANY


def card_id(device: Device) -> str:
    """By the card's switch, two levels above the device."""
    return f"card-{device.above[-2]}"


def differences(want: Expected, listed: Listed) -> list[str]:
    """One line for each advertised device that is wrong in the kubelet's list."""
    found: list[str] = []
    for resource, advertised in want.items():
        health_of = listed.get(resource, {})
        for device_id, what in advertised.items():
            health = health_of.get(device_id)
            if not _right(what, health):
                found.append(f"{resource} {device_id}: {health or 'not listed'}, is {what.value}")
        found += [
            f"{resource} {device_id}: unknown"
            for device_id in health_of
            if device_id not in advertised
        ]
    for resource, health_of in listed.items():
        if resource not in want:
            healthy = [device_id for device_id, health in health_of.items() if health == "Healthy"]
            found += [f"{resource} {device_id}: no longer advertised" for device_id in healthy]
    return found


def _right(what: Expect, health: str | None) -> bool:
    if what is Expect.ANY:
        return True
    if what is Expect.GONE:
        return health != "Healthy"
    return bool(health == what.value)
