"""A node that does not exist: what its bus and its mx-smi would show. Pure.

`Layout` is the machine as built, `Faults` what is wrong with it at the moment;
`bus_scan` and `smi_report` are what a plugin would see of the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from ..runtime.errors import ConfigurationError
from .types import (
    AerCounts,
    BusScan,
    DeviceNode,
    Link,
    PciFunction,
    SmiDevice,
    SmiReport,
    Telemetry,
)

CHIPS = {"S4": 1, "S10": 2, "S30": 3}
DEVICE_IDS = {"S4": 0x7004, "S10": 0x7010, "S30": 0x7030}  # only the S30's is the real one
MAX_CHIPS = 4096

#: What can go wrong with one chip, by the word that `simulate inject` takes.
CHIP_FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "gone": "it leaves the bus",
        "config": "its configuration space reads all ones",
        "driver": "no driver is bound",
        "node": "it has no device node",
        "firmware": "mx-smi does not list it",
        "ecc": "mx-smi counts an uncorrected memory error",
        "aer": "the bus counts a fatal error",
        "hot": "it is at 97 C",
        "warm": "it is at 84 C",
        "zero": "power and temperature read 0",
        "link": "its link runs at half speed",
        "corrected": "mx-smi counts corrected memory errors",
    }
)
#: What can go wrong with the node as a whole (its name in place of a bus id: `node`).
NODE_FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "smi-silent": "mx-smi gives no answer",
        "sola-old": "SOLA is 3.4.2",
    }
)
NODE = "node"


@dataclass(frozen=True, slots=True)
class Chip:
    bus_id: str
    ancestors: tuple[str, ...]
    switch: str | None
    index: int
    product: str
    serial: str
    numa_node: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The chips of a simulated node, in bus order."""

    chips: tuple[Chip, ...]

    def card_of(self, bus_id: str) -> tuple[Chip, ...]:
        """All the chips on the card that `bus_id` is on; empty for an unknown one."""
        serials = {chip.serial for chip in self.chips if chip.bus_id == bus_id}
        return tuple(chip for chip in self.chips if chip.serial in serials)


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults by bus id (or `node`); `reboots` counts how often a chip came back."""

    faults: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    reboots: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, key: str) -> frozenset[str]:
        return self.faults.get(key, frozenset())

    def with_fault(self, key: str, fault: str) -> Self:
        return type(self)({**self.faults, key: self.of(key) | {fault}}, self.reboots)

    def without(self, key: str) -> Self:
        """Without any fault of `key`."""
        return type(self)({k: v for k, v in self.faults.items() if k != key}, self.reboots)

    def rebooted(self, key: str) -> Self:
        """Back on the bus as a new incarnation, without the faults that a reboot clears."""
        cleared = self.without(key)
        return type(self)(cleared.faults, {**self.reboots, key: self.reboots.get(key, 0) + 1})

    def to_json(self) -> str:
        faults = {key: sorted(names) for key, names in self.faults.items()}
        return json.dumps({"faults": faults, "reboots": dict(self.reboots)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError for anything that `to_json` does not write."""
        try:
            data = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        if not isinstance(data, dict):
            raise ValueError("not an object")  # noqa: TRY004  (one kind of error for one cause)
        try:
            faults = {str(k): frozenset(map(str, v)) for k, v in data.get("faults", {}).items()}
            reboots = {str(k): int(v) for k, v in data.get("reboots", {}).items()}
        except (AttributeError, TypeError, OverflowError) as error:
            raise ValueError(str(error)) from error
        return cls(faults, reboots)


def parse_spec(spec: str, key: str = "--simulate") -> tuple[str, ...]:
    """`2xS4,1xS30` is `("S4", "S4", "S30")`, a product for each card."""
    cards: list[str] = []
    for part in spec.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})\s*x\s*(S\d+)\s*", part, re.IGNORECASE)
        if match is None or match[2].upper() not in CHIPS:
            known = ", ".join(CHIPS)
            raise ConfigurationError(
                key, spec, f"use COUNTxPRODUCT[,...] such as 8xS30; products: {known}"
            )
        cards += [match[2].upper()] * int(match[1])
        if sum(CHIPS[card] for card in cards) > MAX_CHIPS:
            raise ConfigurationError(key, spec, f"at most {MAX_CHIPS} chips")
    return tuple(cards)


def build(cards: tuple[str, ...]) -> Layout:
    """Places cards as servers do: the first half on one socket, the rest on the other."""
    half = (len(cards) + 1) // 2
    slots = [*_slots(cards[:half], 0, 0x33), *_slots(cards[half:], 1, 0xB3)]
    chips: list[Chip] = []
    for number, (product, bridge, port, bus, numa) in enumerate(slots):
        domain = bridge.removeprefix("pci").split(":")[0]
        path: tuple[str, ...] = (bridge, port)
        switch = None
        serial = f"2023243080{number + 101}"
        for chip in range(CHIPS[product]):
            ancestors, chip_bus = path, bus
            if CHIPS[product] > 1:
                switch = f"{domain}:{bus:02x}:00.0"
                ancestors = (*path, switch, f"{domain}:{bus + 1:02x}:{chip:02x}.0")
                chip_bus = bus + 2 + chip
            bus_id = f"{domain}:{chip_bus:02x}:00.0"
            chips.append(Chip(bus_id, ancestors, switch, -1, product, serial, numa))
    chips.sort(key=lambda chip: chip.bus_id)
    return Layout(
        tuple(
            Chip(c.bus_id, c.ancestors, c.switch, i, c.product, c.serial, c.numa_node)
            for i, c in enumerate(chips)
        )
    )


def _slots(
    cards: tuple[str, ...], numa: int, base: int
) -> Iterator[tuple[str, str, str, int, int]]:
    """For each card: product, host bridge, root port, first bus, NUMA node.

    A host bridge has room for 31 root ports and 64 buses; then the next PCI
    domain begins, as it does on large machines.
    """
    domain, device, bus = 0, 1, base + 1
    for product in cards:
        needed = CHIPS[product] + 2 if CHIPS[product] > 1 else 1
        if device > 0x1F or bus + needed > base + 64:
            domain, device, bus = domain + 1, 1, base + 1
        port = f"{domain:04x}:{base:02x}:{device:02x}.0"
        yield product, f"pci{domain:04x}:{base:02x}", port, bus, numa
        device, bus = device + 1, bus + needed


def bus_scan(layout: Layout, faults: Faults) -> BusScan:
    functions = tuple(
        _function(chip, faults) for chip in layout.chips if "gone" not in faults.of(chip.bus_id)
    )
    return BusScan(functions)


def _function(chip: Chip, faults: Faults) -> PciFunction:
    wrong = faults.of(chip.bus_id)
    # Any machine has /dev/null, so that pods can be given "their" node anywhere.
    node = DeviceNode("/dev/null", f"/dev/spu-sim{chip.index}")
    return PciFunction(
        bus_id=chip.bus_id,
        ancestors=chip.ancestors,
        device_id=DEVICE_IDS[chip.product],
        subsystem_id=0x7000,
        driver=None if "driver" in wrong else "moffett-sim",
        numa_node=chip.numa_node,
        nodes=() if wrong & {"node", "driver"} else (node,),
        responding="config" not in wrong,
        link=Link(4.0 if "link" in wrong else 8.0, 8.0, 16, 16),
        aer=AerCounts(0, 0, 1 if "aer" in wrong else 0),
        switch=chip.switch,
        incarnation=faults.reboots.get(chip.bus_id, 0),
    )


def smi_report(layout: Layout, faults: Faults) -> SmiReport:
    devices = tuple(
        _row(chip, faults.of(chip.bus_id))
        for chip in layout.chips
        if not faults.of(chip.bus_id) & {"gone", "firmware", "driver", "config"}
    )
    version = "3.4.2" if "sola-old" in faults.of(NODE) else "3.5.3"
    return SmiReport(devices, driver_version="3.5.2", sola_version=version)


def _row(chip: Chip, wrong: frozenset[str]) -> SmiDevice:
    temperature = 43.0 + chip.index * 7 % 20
    for fault, value in (("warm", 84.0), ("hot", 97.0), ("zero", 0.0)):
        if fault in wrong:
            temperature = value
    return SmiDevice(
        bus_id=chip.bus_id,
        index=chip.index,
        product=chip.product,
        serial=chip.serial,
        uuid=f"01000000-0000-0000-0000-00SIM{chip.index:07d}",
        board=f"0x{int(chip.serial[10:]) - 100:03x}",
        cores=4,
        firmware_version="1.0.14",
        mcu_version="4X08",
        telemetry=Telemetry(
            memory_total_mib=20480,
            memory_reserved_mib=4484,
            memory_used_mib=0,
            memory_free_mib=15996,
            utilization_percent=0.0,
            temperature_celsius=temperature,
            power_draw_watts=0.0 if "zero" in wrong else 2.0 + chip.index % 3,
            power_limit_watts=83.0,
            frequency_mhz=700.0,
            voltage_mv=930.0 - chip.index % 6,
            ecc_corrected_volatile=12 if "corrected" in wrong else 0,
            ecc_uncorrected_volatile=1 if "ecc" in wrong else 0,
            ecc_corrected_aggregate=12 if "corrected" in wrong else 0,
            ecc_uncorrected_aggregate=1 if "ecc" in wrong else 0,
        ),
    )
