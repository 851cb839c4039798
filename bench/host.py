"""The tests' fake host with any number of SPU devices, and two faults that need care here:
a function that leaves the bus, and a configuration space that reads all ones.

The latter is written through a shared memory mapping: as on a real host, no file-system
event reports it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.fakehost import FakeHost

#: Character devices that are no SPUs, as many as a server has.
_OTHERS = 200
#: What an mx-smi prints of one healthy device, with the columns that differ left out.
_CONSTANT = {
    "name": "01S30-00A",
    "cores": "4",
    "firmware_version": "1.0.14",
    "mcu_version": "4X08",
    "driver_version": "3.5.2",
    "sola_version": "3.5.3",
    "memory.total": "20480 MiB",
    "memory.reserved": "4484 MiB",
    "memory.used": "0 MiB",
    "memory.free": "15996 MiB",
    "temperature": "43 C",
    "power.draw": "2 W",
    "power.limit": "83 W",
    "utilization": "0 %",
    "frequency": "700 MHz",
    "volatile": "930 mV",
    "ecc.errors.corrected.volatile.device_memory": "0",
    "ecc.errors.corrected.aggregate.device_memory": "0",
    "ecc.errors.uncorrected.volatile.device_memory": "0",
    "ecc.errors.uncorrected.aggregate.device_memory": "0",
}


@dataclass(frozen=True, slots=True)
class Function:
    """One SPU; `above` are the root complex, its port and, on an S30, the card's switch."""

    index: int
    bus_id: str
    above: tuple[str, ...]
    numa_node: int


def functions(devices: int) -> tuple[Function, ...]:
    """In bus order: S30 cards (three devices) if `devices` is a multiple of three, else S4.

    A PCI domain has eight cards, so that any number of cards has bus ids.
    """
    size = 3 if devices % 3 == 0 else 1
    made: list[Function] = []
    for card in range(devices // size):
        domain, slot = divmod(card, 8)
        bus = 0x10 + slot * 0x10
        port = (f"pci{domain:04x}:00", f"{domain:04x}:00:{slot + 1:02x}.0")
        for chip in range(size):
            switch = (f"{domain:04x}:{bus:02x}:00.0", f"{domain:04x}:{bus + 1:02x}:{chip:02x}.0")
            above = port + switch if size > 1 else port
            bus_id = f"{domain:04x}:{bus + 2 + chip:02x}:00.0"
            made.append(Function(len(made), bus_id, above, slot // 4))
    return tuple(made)


class BenchHost:
    """`root` is what goes to --host-root; `devices` are in bus order."""

    def __init__(self, root: Path, devices: int) -> None:
        self.root = root
        self.devices = functions(devices)
        self._host = FakeHost(root)
        for device in self.devices:
            self._add(device)
        for minor in range(_OTHERS):
            self._host.control_node(f"tty{minor}", "tty")
        self._host.sola("3.5.3")
        columns = ", ".join(("index", "pci.bus_id", "serial", *_CONSTANT))
        self._host.smi_table(*map(_smi_row, self.devices), columns=columns)

    def remove(self, device: Function) -> None:
        """The function leaves the bus."""
        self._host.remove(device.bus_id)

    def restore(self, device: Function) -> None:
        """It is on the bus again, with the same bus ID."""
        self._add(device)

    @contextmanager
    def config_of(self, device: Function) -> Iterator[mmap.mmap]:
        """Its configuration space; to be opened before anything watches the file."""
        path = self.root / "sys/bus/pci/devices" / device.bus_id / "config"
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as config:
            yield config

    def _add(self, device: Function) -> None:
        self._host.function(device.bus_id, device.above, numa=device.numa_node)


def _smi_row(device: Function) -> str:
    """mx-smi does not pad the domain: `0:3a:00.0`."""
    domain, _, rest = device.bus_id.partition(":")
    values: Sequence[str] = (
        str(device.index),
        f"{int(domain, 16):x}:{rest}",
        f"20232430{device.index:05d}",
        *_CONSTANT.values(),
    )
    return ", ".join(values)
