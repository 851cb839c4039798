"""Reads SPU functions from a sysfs tree.

Every reader takes the tree's root (`/sys`, or `sys` below a host root) and
survives files that vanish between listing and reading: a card's reboot removes
its directories at any moment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from ..runtime.resource_exhausted import is_resource_exhausted
from .pci import (
    BASE_CLASS_ACCELERATOR,
    DEVICE_S30,
    ON_CARD_SWITCH,
    VENDOR_MOFFETT,
    bus_order,
    sysfs_bus_id,
)
from .registers import Registers
from .types import AerCounts, Link, PciFunction

_ALL_ONES = b"\xff\xff\xff\xff"
N = TypeVar("N", int, float)
_LIMIT = 65_536  # no sysfs attribute is longer than a page


def read(path: str) -> bytes | None:
    """The file's first bytes, or None when it cannot be read (now). Raises OSError when
    the cause is not the file (`is_resource_exhausted`)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        if is_resource_exhausted(error):
            raise
        return None
    try:
        return os.read(fd, _LIMIT)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_text(path: str) -> str | None:
    data = read(path)
    return None if data is None else data.decode(errors="replace").strip()


def read_int(path: str) -> int | None:
    """A decimal or 0x number of the kernel's 64 bits; None for anything else."""
    try:
        number = int(read_text(path) or "", 0)
    except ValueError:
        return None
    return number if abs(number) < 1 << 63 else None


def link_name(path: str) -> str | None:
    """The last part of a symbolic link's target, e.g. a driver's name."""
    try:
        name = os.path.basename(os.readlink(path))  # noqa: PTH115, PTH119
    except OSError:
        return None
    return name if name.isprintable() and name not in ("", ".", "..") else None


def spu_bus_ids(sys_root: str) -> list[str]:
    """The bus ids of every SPU function: the vendor's, and an accelerator by class."""
    folder = f"{sys_root}/bus/pci/devices"
    return [name for name in _functions(sys_root) if _is_spu(f"{folder}/{name}")]


def unread_functions(sys_root: str) -> list[str]:
    """The functions that do not tell their vendor and class."""
    folder = f"{sys_root}/bus/pci/devices"
    return [
        name
        for name in _functions(sys_root)
        if None in (read_int(f"{folder}/{name}/vendor"), read_int(f"{folder}/{name}/class"))
    ]


def _functions(sys_root: str) -> list[str]:
    try:
        names = os.listdir(f"{sys_root}/bus/pci/devices")  # noqa: PTH208
    except OSError as error:
        if is_resource_exhausted(error):
            raise
        return []
    return sorted((name for name in names if sysfs_bus_id(name) == name), key=bus_order)


def _is_spu(path: str) -> bool:
    if read_int(f"{path}/vendor") != VENDOR_MOFFETT:
        return False
    pci_class = read_int(f"{path}/class")
    return pci_class is not None and pci_class >> 16 == BASE_CLASS_ACCELERATOR


def is_virtual(sys_root: str, bus_id: str) -> bool:
    """Whether it is an SR-IOV virtual function."""
    return os.path.islink(f"{sys_root}/bus/pci/devices/{bus_id}/physfn")  # noqa: PTH114


def read_function(sys_root: str, bus_id: str, registers: Registers) -> PciFunction | None:
    """One function, without its nodes; None when it left while it was read."""
    path = f"{sys_root}/bus/pci/devices/{bus_id}"
    real = os.path.realpath(path)
    device_id = read_int(f"{path}/device")
    try:
        incarnation = os.stat(real).st_ino  # noqa: PTH116
    except OSError:
        return None
    ancestors = _ancestors(real)
    numa = read_int(f"{path}/numa_node")
    responding: bool | None = None
    # A virtual function's vendor register reads ones by specification.
    if registers.config is not None and not is_virtual(sys_root, bus_id):
        responding = registers.config != _ALL_ONES
    return PciFunction(
        bus_id=bus_id,
        ancestors=ancestors,
        device_id=device_id or 0,
        subsystem_id=read_int(f"{path}/subsystem_device"),
        driver=link_name(f"{path}/driver"),
        numa_node=None if numa is None or numa < 0 else numa,
        nodes=(),
        responding=responding,
        # The kernel reads the link's state from the hardware.
        link=Link() if registers.config is None else _link(path, os.path.dirname(real)),  # noqa: PTH120
        aer=_aer(path, registers),
        switch=_on_card_switch(sys_root, ancestors, device_id or 0),
        incarnation=incarnation,
    )


def driver_names(sys_root: str, drivers: Sequence[str]) -> set[str]:
    """These drivers and the modules that they are of."""
    folder = f"{sys_root}/bus/pci/drivers"
    modules = {link_name(f"{folder}/{driver}/module") for driver in drivers}
    return {*drivers, *(name for name in modules if name)}


def _ancestors(real: str) -> tuple[str, ...]:
    parts = real.split("/")[:-1]
    for i, part in enumerate(parts):
        if re.fullmatch(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}", part):
            return tuple(parts[i:])
    # No host bridge in the path (an unusual or partial tree): the functions in it.
    return tuple(part for part in parts if sysfs_bus_id(part) == part)


def _on_card_switch(sys_root: str, ancestors: tuple[str, ...], device_id: int) -> str | None:
    """The upstream port of the switch that sits on the function's own card.

    A function hangs off a downstream port, whose parent is the upstream port.
    Servers have switches of their own, so the ports must be of the on-card kind,
    or the function of a product that is known to have one.
    """
    ports = [name for name in ancestors if not name.startswith("pci")]
    if len(ports) < 2:
        return None
    upstream, downstream = ports[-2:]
    if device_id == DEVICE_S30:
        return upstream
    folder = f"{sys_root}/bus/pci/devices"
    kinds = {
        (read_int(f"{folder}/{port}/vendor"), read_int(f"{folder}/{port}/device"))
        for port in (upstream, downstream)
    }
    return upstream if kinds == {ON_CARD_SWITCH} else None


# -- registers and counters -------------------------------------------------------


def _link(path: str, port: str) -> Link:
    return Link(
        speed=_speed(read_text(f"{path}/current_link_speed")),
        max_speed=_least(_speed(read_text(f"{end}/max_link_speed")) for end in (path, port)),
        width=read_int(f"{path}/current_link_width") or None,
        max_width=_least(read_int(f"{end}/max_link_width") for end in (path, port)),
    )


def _least(values: Iterable[N | None]) -> N | None:
    return min((value for value in values if value), default=None)


def _speed(text: str | None) -> float | None:
    """`8.0 GT/s PCIe` (or, on old kernels, `8 GT/s`) is 8.0."""
    match = re.match(r"\s*(\d+(?:\.\d+)?)\s*GT/s", text or "")
    return float(match[1]) if match else None


def _aer(path: str, registers: Registers) -> AerCounts:
    return AerCounts(
        correctable=_aer_total(read_text(f"{path}/aer_dev_correctable")),
        nonfatal=_aer_total(read_text(f"{path}/aer_dev_nonfatal")),
        fatal=_aer_total((registers.aer_fatal or b"").decode(errors="replace")),
    )


def _aer_total(text: str | None) -> int | None:
    """The file's TOTAL line, or the sum of its counters where it has none."""
    if not text:
        return None
    counts: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if value.isdecimal() and len(value) <= 20:  # 64 bits
            counts[name.strip()] = int(value)
    totals = [count for name, count in counts.items() if name.startswith("TOTAL")]
    if totals:
        return totals[0]
    return sum(counts.values()) if counts else None
