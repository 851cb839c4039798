"""A fake host: the sysfs files of SPU cards, and an mx-smi that lists them.

The faults are those that a host shows: a function that left the bus, and one
whose configuration space reads all ones. The latter is done through a shared
memory mapping: as on a real host, no file-system event tells of it.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_VENDOR = 0x1F36
_CONFIG_SIZE = 256
_OTHERS = 200
_FOLDERS = (
    "sys/bus/pci/devices",
    "sys/bus/pci/drivers/moffett",
    "sys/class/moffett",
    "sys/dev/char",
    "dev",
    "usr/bin",
    "usr/local/sola-3.5.3",
)
_LINK = {
    "current_link_speed": "8.0 GT/s PCIe",
    "max_link_speed": "8.0 GT/s PCIe",
    "current_link_width": "16",
    "max_link_width": "16",
}
_AER = {
    "aer_dev_correctable": "RxErr 0\nTOTAL_ERR_COR 0",
    "aer_dev_nonfatal": "DLP 0\nTOTAL_ERR_NONFATAL 0",
    "aer_dev_fatal": "DLP 0\nTOTAL_ERR_FATAL 0",
}


@dataclass(frozen=True, slots=True)
class Function:
    """One SPU: `index` counts from 0 in bus order; `above` are bridge and ports."""

    index: int
    bus_id: str
    above: tuple[str, ...]
    serial: str
    numa_node: int

    @property
    def device(self) -> str:
        """The character device's number, as MAJOR:MINOR."""
        return f"{240 + self.index // 256}:{self.index % 256}"


def functions(devices: int) -> tuple[Function, ...]:
    """Cards of three chips behind a switch when they come out even, else of one.

    A PCI domain holds eight cards, so that any number of them has bus ids.
    """
    chips = 3 if devices % 3 == 0 else 1
    made: list[Function] = []
    for card in range(devices // chips):
        domain, slot = divmod(card, 8)
        bus = 0x10 + slot * 0x10
        above: tuple[str, ...] = (f"pci{domain:04x}:00", f"{domain:04x}:00:{slot + 1:02x}.0")
        for chip in range(chips):
            path = above
            if chips > 1:
                port = f"{domain:04x}:{bus + 1:02x}:{chip:02x}.0"
                path = (*above, f"{domain:04x}:{bus:02x}:00.0", port)
            made.append(
                Function(
                    index=len(made),
                    bus_id=f"{domain:04x}:{bus + 2 + chip:02x}:00.0",
                    above=path,
                    serial=f"20232430{card:05d}",
                    numa_node=slot // 4,
                )
            )
    return tuple(made)


@dataclass(slots=True)
class SysfsHardware:
    """The tree at `root`. Call `build` first, `close` last."""

    root: Path
    devices: int
    _configs: dict[str, mmap.mmap] = field(default_factory=dict)

    @property
    def _functions(self) -> dict[str, Function]:
        return {function.bus_id: function for function in functions(self.devices)}

    @property
    def _bus(self) -> Path:
        return self.root / "sys/bus/pci/devices"

    def build(self) -> None:
        for folder in _FOLDERS:
            (self.root / folder).mkdir(parents=True)
        (self.root / "usr/local/sola").symlink_to("sola-3.5.3")
        for function in self._functions.values():
            self._add_ports(function)
            self._add(function)
            (self.root / f"dev/spu{function.index}").touch()
        self._add_others()
        self._write_smi()

    def close(self) -> None:
        for config in self._configs.values():
            config.close()

    def remove(self, bus_id: str) -> None:
        """The function leaves the bus; the link that lists it goes first."""
        function = self._functions[bus_id]
        (self._bus / bus_id).unlink()
        (self.root / "sys/dev/char" / function.device).unlink()
        shutil.rmtree(self._real(function))

    def restore(self, bus_id: str) -> None:
        """It is back, with the same bus id."""
        self._add(self._functions[bus_id])

    def map_config(self, bus_id: str) -> None:
        """Prepares `silence`; must be called before anyone watches the files."""
        path = self._real(self._functions[bus_id]) / "config"
        with path.open("r+b") as file:
            self._configs[bus_id] = mmap.mmap(file.fileno(), _CONFIG_SIZE)

    def silence(self, bus_id: str) -> None:
        """Its configuration space reads all ones."""
        self._configs[bus_id][:] = b"\xff" * _CONFIG_SIZE

    def _real(self, function: Function) -> Path:
        return self.root.joinpath("sys/devices", *function.above, function.bus_id)

    def _add_ports(self, function: Function) -> None:
        for depth in range(2, len(function.above) + 1):
            folder = self.root.joinpath("sys/devices", *function.above[:depth])
            vendor, device = ("0x8086", "0x2030") if depth == 2 else ("0x11f8", "0x4068")
            if folder.exists():
                continue
            _write(folder, {"vendor": vendor, "device": device, "class": "0x060400"})
            self._link(self._bus / folder.name, folder)

    def _add(self, function: Function) -> None:
        real = self._real(function)
        attributes = {
            "vendor": f"{_VENDOR:#06x}",
            "device": "0x7030",
            "class": "0x120000",
            "subsystem_vendor": f"{_VENDOR:#06x}",
            "subsystem_device": "0x7000",
            "numa_node": str(function.numa_node),
        }
        _write(real, attributes | _LINK | _AER)
        identity = (_VENDOR | 0x7030 << 16).to_bytes(4, "little")
        (real / "config").write_bytes(identity.ljust(_CONFIG_SIZE, b"\0"))
        self._link(real / "driver", self.root / "sys/bus/pci/drivers/moffett")
        node = real / "moffett" / f"spu{function.index}"
        major, minor = function.device.split(":")
        uevent = f"MAJOR={major}\nMINOR={minor}\nDEVNAME=spu{function.index}"
        _write(node, {"dev": function.device, "uevent": uevent})
        self._link(node / "subsystem", self.root / "sys/class/moffett")
        self._link(self.root / "sys/dev/char" / function.device, node)
        self._link(self._bus / function.bus_id, real)  # last: now it is all there

    def _add_others(self) -> None:
        """The character devices that any host has, as many as a server shows."""
        for minor in range(_OTHERS):
            folder = self.root / "sys/devices/virtual/tty" / f"tty{minor}"
            uevent = f"MAJOR=4\nMINOR={minor}\nDEVNAME=tty{minor}"
            _write(folder, {"dev": f"4:{minor}", "uevent": uevent})
            self._link(self.root / f"sys/dev/char/4:{minor}", folder)

    def _link(self, path: Path, target: Path) -> None:
        path.symlink_to(os.path.relpath(target, path.parent))

    def _write_smi(self) -> None:
        """A script that prints a table made beforehand: the cheapest mx-smi there can
        be, so that what is measured is the plugin's side of it."""
        table = self.root / "usr/local/sola/devices.csv"
        table.write_text(smi_table(functions(self.devices)))
        script = self.root / "usr/bin/mx-smi"
        script.write_text(f"#!/bin/sh\nexec cat '{table}'\n")
        script.chmod(0o755)


def smi_table(rows: tuple[Function, ...]) -> str:
    """What `mx-smi select` prints for these devices, all of them well."""
    columns: dict[str, Callable[[Function], str]] = {
        "index": lambda f: str(f.index),
        "pci.bus_id": _smi_bus_id,
        "serial": lambda f: f.serial,
        "uuid": lambda f: f"01000000-0000-0000-0000-00AKS{f.index:07d}",
        "board": lambda f: str(int(f.serial[-5:]) + 1),
        "name": lambda _: "01S30-00A",
        "cores": lambda _: "4",
        "firmware_version": lambda _: "1.0.14",
        "mcu_version": lambda _: "4X08",
        "driver_version": lambda _: "3.5.2",
        "sola_version": lambda _: "3.5.3",
        "memory.total": lambda _: "20480 MiB",
        "memory.reserved": lambda _: "4484 MiB",
        "memory.used": lambda _: "0 MiB",
        "memory.free": lambda _: "15996 MiB",
        "temperature": lambda f: f"{43 + f.index % 20} C",
        "power.draw": lambda _: "2 W",
        "power.limit": lambda _: "83 W",
        "utilization": lambda _: "0 %",
        "frequency": lambda _: "700 MHz",
        "volatile": lambda _: "930 mV",
        **{
            f"ecc.errors.{kind}.{span}.device_memory": lambda _: "0"
            for kind in ("corrected", "uncorrected")
            for span in ("volatile", "aggregate")
        },
    }
    lines = [", ".join(columns), *(", ".join(c(row) for c in columns.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def _smi_bus_id(function: Function) -> str:
    """mx-smi does not pad the domain: `0:3a:00.0`."""
    domain, _, rest = function.bus_id.partition(":")
    return f"{int(domain, 16):x}:{rest}"


def _write(folder: Path, attributes: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in attributes.items():
        (folder / name).write_text(value + "\n")
