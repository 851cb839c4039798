"""A host root made of ordinary files, laid out as sysfs lays out a node."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

LINK = {
    "current_link_speed": "8.0 GT/s PCIe",
    "max_link_speed": "8.0 GT/s PCIe",
    "current_link_width": "16",
    "max_link_width": "16",
}
DEVICES = "Character devices:\n  1 mem\n 10 misc\n240 moffett\n\nBlock devices:\n240 other\n"
FATAL = "Undefined 0\nDLP {n}\nTOTAL_ERR_FATAL {n}\n"


class FakeHost:
    """`root` is what goes to --host-root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sys = root / "sys"
        for folder in ("bus/pci/devices", "bus/pci/drivers", "dev/char", "class"):
            (self.sys / folder).mkdir(parents=True)
        (root / "proc").mkdir()
        (root / "proc/devices").write_text(DEVICES)
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/local").mkdir(parents=True)
        self._minor = 0

    def function(
        self,
        bus_id: str,
        above: tuple[str, ...] = ("pci0000:33", "0000:33:01.0"),
        *,
        vendor: str = "0x1f36",
        device: str = "0x7030",
        pci_class: str = "0x120000",
        numa: int = 0,
        driver: str | None = "moffett",
        node: str | None = "",
        node_class: str = "moffett",
    ) -> Path:
        """One PCI function; `node` is its device node's name ("" for one by number)."""
        path = self.sys.joinpath("devices", *above, bus_id)
        path.mkdir(parents=True)
        values = {"vendor": vendor, "device": device, "class": pci_class, "numa_node": str(numa)}
        values |= {"subsystem_device": "0x7000", "aer_dev_fatal": FATAL.format(n=0), **LINK}
        for name, value in values.items():
            (path / name).write_text(value + "\n")
        (path / "config").write_bytes(bytes.fromhex("361f3070") + bytes(60))
        if driver:
            self.bind(path, driver)
        if node is not None:
            self.node(path, node or f"spu{self._minor}", node_class)
        self.link(path)
        return path

    def link(self, path: Path) -> None:
        """Lists a function on the bus: the last thing that the kernel does."""
        target = os.path.relpath(path, self.sys / "bus/pci/devices")
        (self.sys / "bus/pci/devices" / path.name).symlink_to(target)

    def bridge(self, bus_id: str, above: tuple[str, ...], ids: tuple[str, str]) -> None:
        path = self.sys.joinpath("devices", *above, bus_id)
        path.mkdir(parents=True, exist_ok=True)
        for name, value in zip(("vendor", "device", "class"), (*ids, "0x060400"), strict=True):
            (path / name).write_text(value + "\n")
        self.link(path)

    def bind(self, path: Path, driver: str) -> None:
        folder = self.sys / "bus/pci/drivers" / driver
        folder.mkdir(parents=True, exist_ok=True)
        (path / "driver").symlink_to(os.path.relpath(folder, path))

    def node(
        self, parent: Path, name: str, node_class: str = "moffett", *, numbered: bool = True
    ) -> Path:
        """A character device below `parent` (a function, or devices/virtual)."""
        path = parent / node_class / name.replace("/", "!")
        path.mkdir(parents=True)
        folder = self.sys / "class" / node_class
        folder.mkdir(parents=True, exist_ok=True)
        (path / "subsystem").symlink_to(os.path.relpath(folder, path))
        (folder / path.name).symlink_to(os.path.relpath(path, folder))
        if parent != self.sys / "devices/virtual":
            (path / "device").symlink_to(os.path.relpath(parent, path))
        major, minor = 240 if "moffett" in node_class else 241, self._minor
        number = f"{major}:{minor}"
        self._minor += 1
        (path / "uevent").write_text(f"MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\n")
        (path / "dev").write_text(number + "\n")
        if numbered:
            link = self.sys / "dev/char" / number
            link.symlink_to(os.path.relpath(path, link.parent))
        return path

    def control_node(self, name: str, node_class: str = "moffett") -> Path:
        return self.node(self.sys / "devices/virtual", name, node_class)

    def remove(self, bus_id: str) -> None:
        link = self.sys / "bus/pci/devices" / bus_id
        path = link.resolve()
        link.unlink()
        shutil.rmtree(path)
        for node in (*self.sys.glob("dev/char/*"), *self.sys.glob("class/*/*")):
            if not node.exists():
                node.unlink()

    def s30(self, first_bus: int, numa: int = 0, bridge: str = "pci0000:33") -> list[str]:
        """A card of three chips behind its own switch; gives their bus ids."""
        domain, root_bus = bridge.removeprefix("pci").split(":")
        port = f"{domain}:{root_bus}:{first_bus & 0x1F:02x}.0"
        upstream = f"{domain}:{first_bus:02x}:00.0"
        ids = []
        for chip in range(3):
            downstream = f"{domain}:{first_bus + 1:02x}:{chip:02x}.0"
            bus_id = f"{domain}:{first_bus + 2 + chip:02x}:00.0"
            self.function(bus_id, (bridge, port, upstream, downstream), numa=numa)
            ids.append(bus_id)
        return ids

    def set(self, bus_id: str, name: str, value: str | bytes) -> None:
        path = self.sys / "bus/pci/devices" / bus_id / name
        path.write_bytes(value.encode() if isinstance(value, str) else value)

    def sola(self, version: str) -> None:
        link = self.root / "usr/local/sola"
        link.unlink(missing_ok=True)
        (self.root / f"usr/local/sola-{version}").mkdir(exist_ok=True)
        link.symlink_to(f"sola-{version}")

    def smi(self, script: str) -> Path:
        """Installs an mx-smi: a shell script."""
        path = self.root / "usr/bin/mx-smi"
        new = path.with_suffix(".new")
        new.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        new.chmod(0o755)
        new.rename(path)
        return path

    def smi_table(self, *rows: str, columns: str = "index, pci.bus_id, serial") -> Path:
        """Installs an mx-smi that prints this table, whatever it is asked."""
        table = "\n".join((columns, *rows))
        return self.smi(f"cat <<'END'\n{table}\nEND\n")
