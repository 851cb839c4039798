"""Which devices a resource is made of: conditions on what is known of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..devices.inventory import Device
from ..hardware.pci import sysfs_bus_id


@dataclass(frozen=True, slots=True)
class Selector:
    """Allowed values by key; a key without values says nothing. Products are compared
    without regard to case. No value matches what is not known of a device."""

    products: frozenset[str] = frozenset()
    serials: frozenset[str] = frozenset()
    bus_ids: frozenset[str] = frozenset()
    numa_nodes: frozenset[str] = frozenset()
    indexes: frozenset[str] = frozenset()

    def admits(self, device: Device) -> bool:
        """Whether every key that has values has the device's: a selection."""
        return all(
            not (values := getattr(self, key)) or value_of(device) in values
            for key, value_of in _VALUES.items()
        )

    def catches(self, device: Device) -> bool:
        """Whether any key has the device's value: an exclusion."""
        return any(value_of(device) in getattr(self, key) for key, value_of in _VALUES.items())

    def unknown(self, device: Device) -> tuple[str, ...]:
        """The facts of the device that this asks for and that are not known, because only
        mx-smi knows them: it may still say either."""
        return tuple(
            fact
            for key, fact in _FROM_MX_SMI.items()
            if getattr(self, key) and _VALUES[key](device) is None
        )

    def may_admit(self, device: Device) -> bool:
        """Whether it admits the device, or would if what is not known came out right."""
        return all(
            not (values := getattr(self, key))
            or value_of(device) in values
            or (key in _FROM_MX_SMI and value_of(device) is None)
            for key, value_of in _VALUES.items()
        )

    def apart_from(self, other: Selector) -> bool:
        """Whether no device can be admitted by both."""
        return any(
            (mine := getattr(self, key)) and (its := getattr(other, key)) and not mine & its
            for key in _VALUES
        )

    def within(self, excluded: Selector) -> bool:
        """Whether all that this admits is caught by `excluded`."""
        return any(
            (mine := getattr(self, key)) and mine <= getattr(excluded, key) for key in _VALUES
        )


#: The selector without a condition.
ANYTHING = Selector()

_VALUES: Mapping[str, Callable[[Device], str | None]] = {
    "products": lambda device: device.product.casefold() if device.product else None,
    "serials": lambda device: device.serial,
    "bus_ids": lambda device: device.id,
    "numa_nodes": lambda device: None if device.numa_node is None else str(device.numa_node),
    "indexes": lambda device: str(device.index),
}

#: Keys whose values only mx-smi knows, and what each is called.
_FROM_MX_SMI: Mapping[str, str] = {"products": "product", "serials": "serial number"}


def normal(key: str, text: str) -> str | None:
    """A value as `Selector` compares it; None if it can never be one of `key`."""
    match key:
        case "products":
            return text.casefold() or None
        case "bus_ids":
            return sysfs_bus_id(text)
        case "numa_nodes" | "indexes":
            return str(int(text)) if text.isascii() and text.isdecimal() else None
        case _:
            return text or None
