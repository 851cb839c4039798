"""SPU cards on the kernel's own PCI bus: making them, and what the kernel can do to them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.shell import run

DEVICES = Path("/sys/bus/pci/devices")
DRIVERS = Path("/sys/bus/pci/drivers")
SPU_DRIVER = "spu_driver"


@dataclass(frozen=True, slots=True)
class Cards:
    """What is plugged in: options of module/spu_host.c. `chips` is a number for each card,
    the first half of which is on the first socket."""

    chips: tuple[int, ...] = (3,) * 8
    sockets: int = 2
    numa: bool = True
    domain: int = 0
    virtual_functions: int = 0

    def options(self) -> list[str]:
        """Return them as insmod takes them."""
        return [
            f"cards={','.join(map(str, self.chips))}",
            f"sockets={self.sockets}",
            f"numa={int(self.numa)}",
            f"domain={self.domain}",
            f"vfs={self.virtual_functions}",
        ]


@dataclass(frozen=True, slots=True)
class Driver:
    """How a driver names and places its nodes: options of module/spu_driver.c."""

    names: str = "mxspu%n"
    node_class: str = "mxspu"
    folder: str = ""
    parent: bool = True
    per_chip: int = 1
    control: str = ""
    cyclic: bool = False

    def options(self) -> list[str]:
        """Return them as insmod takes them."""
        given = [
            f"names={self.names}",
            f"class={self.node_class}",
            f"parent={int(self.parent)}",
            f"per_chip={self.per_chip}",
            f"cyclic={int(self.cyclic)}",
        ]
        given += [f"folder={self.folder}"] if self.folder else []
        return given + ([f"control={self.control}"] if self.control else [])


#: A node of 24 devices, as is usual.
USUAL = Cards()
#: Enough for what does not depend on how many there are: an S30 and an S4.
FEW = Cards((3, 1))


@dataclass(frozen=True, slots=True)
class Bus:
    """`modules` is the folder of the SPU modules."""

    modules: Path

    @contextmanager
    def plugged_in(self, cards: Cards, driver: Driver | None = Driver()) -> Iterator[None]:
        """The cards are there, with their driver loaded (None for no driver), until the
        block ends."""
        run(["insmod", self.modules / "spu_host.ko", *cards.options()])
        try:
            if driver is not None:
                self.load_driver(driver)
            yield
        finally:
            loaded = Path("/proc/modules").read_text()
            for module in (SPU_DRIVER, "spu_host"):
                if f"{module} " in loaded:
                    run(["rmmod", module])

    def load_driver(self, driver: Driver) -> None:
        """Load the SPU driver; it binds to every function that has none."""
        run(["insmod", self.modules / f"{SPU_DRIVER}.ko", *driver.options()])

    def unload_driver(self) -> None:
        """Unload it: every chip is without a driver then, and its nodes are gone."""
        run(["rmmod", SPU_DRIVER])

    def modprobe(self, module: str) -> None:
        """Load one of the kernel's own modules."""
        run(["modprobe", module])

    # -- what there is ------------------------------------------------------------------

    def chips(self) -> list[str]:
        """Return the bus ids of all physical SPU functions that are there now."""
        return sorted(
            path.name
            for path in DEVICES.iterdir()
            if self.says(path.name, "vendor") == "0x1f36" and not (path / "physfn").exists()
        )

    def says(self, bus_id: str, attribute: str) -> str:
        """Return what a function's attribute says."""
        return (DEVICES / bus_id / attribute).read_text().strip()

    def driver(self, bus_id: str) -> str | None:
        """Return the name of the driver that a function has, or None."""
        link = DEVICES / bus_id / "driver"
        return link.readlink().name if link.is_symlink() else None

    def nodes(self, bus_id: str) -> list[str]:
        """Return the paths of a function's device nodes."""
        uevents = (DEVICES / bus_id).glob("*/*/uevent")
        names = [re.search(r"^DEVNAME=(.+)$", path.read_text(), re.MULTILINE) for path in uevents]
        return sorted(f"/dev/{name[1]}" for name in names if name)

    def above(self, bus_id: str) -> list[str]:
        """Return the ports from the root port down to the function's parent."""
        real = (DEVICES / bus_id).resolve()
        return [part for part in real.parts[:-1] if part.count(":") == 2]

    # -- what the kernel can do -----------------------------------------------------------

    def remove(self, bus_id: str) -> None:
        """Remove a function, and all that is behind it."""
        self._write(DEVICES / bus_id / "remove", "1")

    def rescan(self) -> None:
        """Look for functions everywhere."""
        self._write(Path("/sys/bus/pci/rescan"), "1")

    def unbind(self, bus_id: str) -> None:
        """Take its driver from a function."""
        self._write(DEVICES / bus_id / "driver" / "unbind", bus_id)

    def bind(self, bus_id: str, driver: str = SPU_DRIVER) -> None:
        """Give it this driver."""
        if driver != SPU_DRIVER:
            self._write(DEVICES / bus_id / "driver_override", driver)
        self._write(DRIVERS / driver / "bind", bus_id)

    def give_back(self, bus_id: str) -> None:
        """Give a function that another driver has to its own again."""
        self.unbind(bus_id)
        self._write(DEVICES / bus_id / "driver_override", "\n")
        self.bind(bus_id)

    def announce(self, bus_id: str) -> None:
        """Have the kernel send a uevent that says that something about it changed."""
        self._write(DEVICES / bus_id / "uevent", "change")

    def set(self, bus_id: str, attribute: str, value: str) -> None:
        """Write a function's attribute."""
        self._write(DEVICES / bus_id / attribute, value)

    # -- what can happen to hardware ------------------------------------------------------

    def order(self, bus_id: str, verb: str, *numbers: int) -> None:
        """Give module/spu_host.c a command, such as `ones` or `link 8 3`."""
        words = (bus_id, verb, *map(str, numbers))
        self._write(Path("/proc/spu_host"), " ".join(words))

    @contextmanager
    def errors_on(self, bus_id: str) -> Iterator[Callable[[int, int], None]]:
        """A function that has this function report PCIe errors through its root port: bits
        of the AER status registers, correctable and uncorrectable ones. The kernel's own
        aer_inject does it, which stands between the kernel and the bus until the block ends:
        nothing may be removed in it."""
        domain, bus, rest = bus_id.split(":")
        device, function = rest.split(".")
        numbers = (int(bus, 16), int(device, 16), int(function))

        def report(correctable: int, uncorrectable: int) -> None:
            # struct aer_error_inj of drivers/pci/pcie/aer_inject.c
            errors = (uncorrectable, correctable, 0, 0, 0, 0, int(domain, 16))
            with Path("/dev/aer_inject").open("wb", buffering=0) as file:
                file.write(struct.pack("=BBBxIIIIIII", *numbers, *errors))

        self.modprobe("aer_inject")
        try:
            yield report
        finally:
            run(["rmmod", "aer_inject"])

    def errors(self, bus_id: str) -> dict[str, int]:
        """Return how many errors of each kind the kernel counted at a function."""
        return {
            kind: int(self.says(bus_id, f"aer_dev_{kind}").split()[-1])
            for kind in ("correctable", "nonfatal", "fatal")
        }

    def _write(self, path: Path, text: str) -> None:
        with path.open("w") as file:
            file.write(text)
