"""A host with SPU cards, as files: sysfs tree, mx-smi, and device nodes that really exist.

The tree has the layout that the kernel gives such cards: functions behind an on-card switch
in sys/devices, links to them in sys/bus/pci/devices, and for each character device a folder
with `dev` and `uevent` and a link in sys/dev/char.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .images import BUSYBOX

# Character device majors that Linux reserves for local use; one without a driver is taken.
_LOCAL_MAJORS = range(240, 255)

_MX_SMI = """\
#!/bin/sh
# Answers `mx-smi select -f FIELDS [-i INDEX...]` from a table, in the form the manual shows.
[ "$1" = select ] || exit 2
shift
fields= indexes= word=
for argument; do
    case $argument in
    -f|-i) word=$argument ;;
    --noheader) ;;
    *) case $word in -f) fields="$fields,$argument" ;; -i) indexes="$indexes $argument" ;; esac ;;
    esac
done
fields=$(echo "$fields" | tr -d '{} ')
exec awk -F', ' -v fields="${fields#,}" -v indexes="$indexes" '
NR == 1 { n = split(fields, want, ","); for (i = 1; i <= NF; i++) column[$i] = i
          for (i = 1; i <= n; i++)
              if (!(want[i] in column)) { print "invalid field " want[i]; exit 1 } }
NR == 1 || indexes == "" || index(indexes " ", " " $column["index"] " ") {
    line = ""; for (i = 1; i <= n; i++) line = line (i > 1 ? ", " : "") $column[want[i]]; print line
}' /etc/mx-smi.table
"""


@dataclass(frozen=True, slots=True)
class Chip:
    """One SPU device of the fake host."""

    index: int
    bus_id: str
    folder: str  # below sys/devices
    card: int
    numa_node: int
    major: int
    minor: int

    @property
    def node(self) -> str:
        """The device node's name below /dev."""
        return f"spu-e2e{self.index}"


def free_major(proc_devices: str) -> int:
    """Return a character device major without a driver.

    Opening a node of such a major tells exactly what a test wants to know: ENXIO if the
    container's device cgroup lets it through to the kernel, EPERM if not. The usual
    harmless nodes (null, zero, ...) would tell nothing, as every container may open those.
    """
    characters = proc_devices.partition("Block devices:")[0]
    taken = {int(number) for number in re.findall(r"^\s*(\d+) ", characters, re.MULTILINE)}
    return next(major for major in _LOCAL_MAJORS if major not in taken)


def two_s30_cards(major: int) -> list[Chip]:
    """Return the six chips of two S30 cards, one at each socket."""
    chips = []
    for card, (bridge, first_bus) in enumerate([(0x33, 0x34), (0xB3, 0xB4)]):
        upstream, downstream = first_bus, first_bus + 1
        for position in range(3):
            bus_id = f"0000:{first_bus + 2 + position:02x}:00.0"
            folder = (
                f"pci0000:{bridge:02x}/0000:{bridge:02x}:01.0/0000:{upstream:02x}:00.0"
                f"/0000:{downstream:02x}:{position:02x}.0/{bus_id}"
            )
            index = 3 * card + position
            chips.append(Chip(index, bus_id, folder, card, card, major, index))
    return chips


@dataclass(slots=True)
class FakeHost:
    """The tree at ``root`` and the nodes in ``dev``."""

    root: Path
    chips: list[Chip]
    dev: Path = Path("/dev")

    def make(self) -> None:
        """Make everything."""
        for name in ("bin", "dev", "etc", "proc", "usr/bin", "usr/local/sola-3.5.3/lib"):
            (self.root / name).mkdir(parents=True)
        for name in ("sys/bus/pci/devices", "sys/bus/pci/drivers/moffett", "sys/dev/char"):
            (self.root / name).mkdir(parents=True)
        (self.root / "usr/local/sola").symlink_to("sola-3.5.3")
        shutil.copy2(BUSYBOX, self.root / "bin/busybox")
        for applet in ("sh", "awk", "tr", "echo"):
            (self.root / "bin" / applet).symlink_to("busybox")
        program = self.root / "usr/bin/mx-smi"
        program.write_text(_MX_SMI)
        program.chmod(0o755)
        self.add(self.chips)

    def add(self, chips: Iterable[Chip]) -> None:
        """Let chips appear on the bus, with their nodes."""
        for chip in chips:
            os.mknod(self.dev / chip.node, stat.S_IFCHR | 0o600, os.makedev(chip.major, chip.minor))
            _make_function(self.root / "sys", chip)
        self._write_table()

    def remove(self, chips: Iterable[Chip]) -> None:
        """Let chips leave the bus, as a reboot or a fault makes them."""
        sysfs = self.root / "sys"
        for chip in chips:
            (sysfs / "bus/pci/devices" / chip.bus_id).unlink(missing_ok=True)
            (sysfs / f"dev/char/{chip.major}:{chip.minor}").unlink(missing_ok=True)
            shutil.rmtree(sysfs / "devices" / chip.folder, ignore_errors=True)
            (self.dev / chip.node).unlink(missing_ok=True)
        self._write_table()

    def rebooted(self, card: int) -> list[Chip]:
        """Return a card's chips as they come back from a reboot: with other minors."""
        return [replace(c, minor=c.minor + 100) for c in self.chips if c.card == card]

    def unmake(self) -> None:
        """Remove the nodes; the tree lies in the cluster's state and goes with it."""
        for path in self.dev.glob("spu-e2e*"):
            path.unlink()

    def _write_table(self) -> None:
        present = [c for c in self.chips if (self.root / "sys/devices" / c.folder).exists()]
        rows = [_smi_row(chip) for chip in present]
        names = list(_smi_row(self.chips[0]))
        lines = [names, *([row[name] for name in names] for row in rows)]
        (self.root / "etc/mx-smi.table").write_text("".join(", ".join(w) + "\n" for w in lines))


def _make_function(sysfs: Path, chip: Chip) -> None:
    folder = sysfs / "devices" / chip.folder
    # What is above the chip: root port, and the on-card switch's ports.
    parts = chip.folder.split("/")
    for depth in range(2, len(parts)):
        port = sysfs / "devices" / "/".join(parts[:depth])
        vendor, device = ("0x8086", "0x347a") if depth == 2 else ("0x11f8", "0x4068")
        _write(port, {"vendor": vendor, "device": device, "class": "0x060400"})
        _link(sysfs / "bus/pci/devices" / port.name, port)
    config = bytes.fromhex("361f30700604100000000012") + bytes(52)
    attributes = {
        "vendor": "0x1f36",
        "device": "0x7030",
        "subsystem_vendor": "0x1f36",
        "subsystem_device": "0x7000",
        "class": "0x120000",
        "numa_node": str(chip.numa_node),
        "current_link_speed": "8.0 GT/s PCIe",
        "max_link_speed": "8.0 GT/s PCIe",
        "current_link_width": "16",
        "max_link_width": "16",
    }
    node = folder / "moffett" / chip.node
    uevent = f"MAJOR={chip.major}\nMINOR={chip.minor}\nDEVNAME={chip.node}"
    _write(node, {"dev": f"{chip.major}:{chip.minor}", "uevent": uevent})
    _link(sysfs / f"dev/char/{chip.major}:{chip.minor}", node)
    _write(folder, attributes)
    (folder / "config").write_bytes(config)
    _link(folder / "driver", sysfs / "bus/pci/drivers/moffett")
    _link(sysfs / "bus/pci/devices" / chip.bus_id, folder)


def _write(folder: Path, attributes: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in attributes.items():
        (folder / name).write_text(value + "\n")


def _link(place: Path, target: Path) -> None:
    """Make a relative link, as in sysfs: it means the same wherever the tree is mounted."""
    if not place.is_symlink():
        place.symlink_to(os.path.relpath(target, place.parent))


def _smi_row(chip: Chip) -> dict[str, str]:
    domain, bus, rest = chip.bus_id.split(":")
    return {
        "index": str(chip.index),
        "pci.bus_id": f"{int(domain, 16):x}:{bus}:{rest}",
        "board": f"0x{chip.card + 1:03x}",
        "count": "6",
        "name": "01S30-00A",
        "serial": f"202324308010{chip.card}",
        "uuid": f"01000000-0000-0000-0000-00E2E{chip.index:07d}",
        "driver_version": "3.5.2",
        "sola_version": "3.5.3",
        "cores": "4",
        "firmware_version": "1.0.14",
        "mcu_version": "4X08",
        "memory.total": "20480 MiB",
        "memory.reserved": "4484 MiB",
        "memory.used": "0 MiB",
        "memory.free": "15996 MiB",
        "utilization": "0 %",
        "temperature": "43 C",
        "power.draw": "2 W",
        "power.limit": "83 W",
        "frequency": "700 MHz",
        "volatile": "930 mV",
        "ecc.errors.corrected.volatile.device_memory": "0",
        "ecc.errors.uncorrected.volatile.device_memory": "0",
        "ecc.errors.corrected.aggregate.device_memory": "0",
        "ecc.errors.uncorrected.aggregate.device_memory": "0",
    }
