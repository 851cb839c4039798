"""Reads SPU functions from a sysfs tree.

Every reader takes the tree's root (`/sys`, or `sys` below a host root) and
survives files that vanish between listing and reading: a card's reboot removes
its directories at any moment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from .facts import AerCounts, DeviceNode, Link, PciFunction
from .pci import (
    BASE_CLASS_ACCELERATOR,
    DEVICE_S30,
    ON_CARD_SWITCH,
    VENDOR_MOFFETT,
    bus_order,
    sysfs_bus_id,
)

#: Classes that unrelated drivers share: being in one says nothing about the SPU.
GENERIC_CLASSES = frozenset(
    {"accel", "drm", "graphics", "hwmon", "input", "mem", "misc", "tty", "vfio", "block"}
)
_ALL_ONES = b"\xff\xff\xff\xff"
_LIMIT = 65_536  # no sysfs attribute is longer than a page


def read(path: str) -> bytes | None:
    """The file's first bytes, or None when it cannot be read (now)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
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
    """A decimal or 0x number; None for anything else."""
    try:
        return int(read_text(path) or "", 0)
    except ValueError:
        return None


def link_name(path: str) -> str | None:
    """The last part of a symbolic link's target, e.g. a driver's name."""
    try:
        return os.path.basename(os.readlink(path))  # noqa: PTH115, PTH119
    except OSError:
        return None


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
    except OSError:
        return []
    return sorted((name for name in names if sysfs_bus_id(name) == name), key=bus_order)


def _is_spu(path: str) -> bool:
    if read_int(f"{path}/vendor") != VENDOR_MOFFETT:
        return False
    pci_class = read_int(f"{path}/class")
    return pci_class is not None and pci_class >> 16 == BASE_CLASS_ACCELERATOR


def read_function(sys_root: str, bus_id: str) -> PciFunction | None:
    """One function; None when it left while it was read."""
    path = f"{sys_root}/bus/pci/devices/{bus_id}"
    real = os.path.realpath(path)
    device_id = read_int(f"{path}/device")
    try:
        incarnation = os.stat(real).st_ino  # noqa: PTH116
    except OSError:
        return None
    ancestors = _ancestors(real)
    numa = read_int(f"{path}/numa_node")
    return PciFunction(
        bus_id=bus_id,
        ancestors=ancestors,
        device_id=device_id or 0,
        subsystem_id=read_int(f"{path}/subsystem_device"),
        driver=link_name(f"{path}/driver"),
        numa_node=None if numa is None or numa < 0 else numa,
        nodes=tuple(sorted(character_devices(sys_root, real), key=_by_path)),
        responding=responding(path),
        link=_link(path),
        aer=_aer(path),
        switch=_on_card_switch(sys_root, ancestors, device_id or 0),
        incarnation=incarnation,
    )


def _by_path(node: DeviceNode) -> list[str | int]:
    """Natural order, so that spu10 follows spu9."""
    parts = re.split(r"(\d+)", node.host_path)
    return [int(part) if part.isdigit() else part for part in parts]


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


# -- device nodes ---------------------------------------------------------------


def character_devices(sys_root: str, real: str) -> Iterator[DeviceNode]:
    """Every character device below the function's directory `real`."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(real):
        # Another function below this one (it is a bridge then) has its own nodes.
        folders[:] = [name for name in folders if sysfs_bus_id(name) is None and name != "power"]
        if "dev" in files and folder != real:
            node = _node_of(folder)
            if node is not None:
                seen.add(node.host_path)
                yield node
    # The same by number: /sys/dev/char holds a link for every character device.
    for entry in _char_links(sys_root):
        target = os.path.realpath(entry)
        if target.startswith(real + "/"):
            node = _node_of(target)
            if node is not None and node.host_path not in seen:
                seen.add(node.host_path)
                yield node


def _char_links(sys_root: str) -> Iterator[str]:
    try:
        with os.scandir(f"{sys_root}/dev/char") as entries:
            yield from (entry.path for entry in entries)
    except OSError:
        return


def _node_of(folder: str) -> DeviceNode | None:
    """The node of a sysfs device directory, None for a block device or no device."""
    if not os.path.isdir(folder):  # noqa: PTH112  (a link that outlived its device)
        return None
    if link_name(f"{folder}/subsystem") == "block" or Path(folder).parent.name == "block":
        return None
    uevent = read_text(f"{folder}/uevent") or ""
    fields = dict(line.split("=", 1) for line in uevent.splitlines() if "=" in line)
    # sysfs writes a '/' inside a device's name as '!'.
    name = fields.get("DEVNAME") or Path(folder).name.replace("!", "/")
    name = name.removeprefix("/dev/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        return None
    return DeviceNode(f"/dev/{name}", f"/dev/{name}")


def control_nodes(
    sys_root: str, functions: list[PciFunction], globs: tuple[str, ...]
) -> tuple[DeviceNode, ...]:
    """Nodes that belong to no function but to all: of the SPUs' own class or driver
    below devices/virtual, and those whose path matches one of `globs`."""
    own = {node.host_path for function in functions for node in function.nodes}
    found: dict[str, DeviceNode] = {}
    for name in sorted(_owners(sys_root, functions) - GENERIC_CLASSES):
        folder = f"{sys_root}/devices/virtual/{name}"
        for path, _, files in os.walk(folder):
            if "dev" in files and (node := _node_of(path)) is not None:
                found[node.host_path] = node
    drivers = {function.driver for function in functions if function.driver}
    for path in _virtual_devices_of(sys_root, drivers):
        if (node := _node_of(path)) is not None:
            found[node.host_path] = node
    if globs:
        for entry in _char_links(sys_root):
            node = _node_of(entry)
            if node is not None and any(fnmatchcase(node.host_path, glob) for glob in globs):
                found[node.host_path] = node
    return tuple(sorted((n for p, n in found.items() if p not in own), key=_by_path))


def _owners(sys_root: str, functions: list[PciFunction]) -> set[str]:
    """The names of the SPUs' drivers and of the classes that their nodes are in."""
    names = {function.driver for function in functions if function.driver}
    for function in functions:
        folder = os.path.realpath(f"{sys_root}/bus/pci/devices/{function.bus_id}")
        for path, _, files in os.walk(folder):
            if "dev" in files and (subsystem := link_name(f"{path}/subsystem")):
                names.add(subsystem)
    return names


def _virtual_devices_of(sys_root: str, drivers: set[str]) -> Iterator[str]:
    """Virtual devices that say they are bound to one of the SPUs' drivers."""
    if not drivers:
        return
    for entry in _char_links(sys_root):
        target = os.path.realpath(entry)
        if "/devices/virtual/" in target and (
            link_name(f"{target}/driver") in drivers
            or link_name(f"{target}/device/driver") in drivers
        ):
            yield target


# -- registers and counters -------------------------------------------------------


def responding(path: str) -> bool:
    """False when configuration space reads all ones: the function fell off its link."""
    return (read(f"{path}/config") or b"")[:4] != _ALL_ONES


def _link(path: str) -> Link:
    return Link(
        speed=_speed(read_text(f"{path}/current_link_speed")),
        max_speed=_speed(read_text(f"{path}/max_link_speed")),
        width=read_int(f"{path}/current_link_width") or None,
        max_width=read_int(f"{path}/max_link_width") or None,
    )


def _speed(text: str | None) -> float | None:
    """`8.0 GT/s PCIe` (or, on old kernels, `8 GT/s`) is 8.0."""
    match = re.match(r"\s*(\d+(?:\.\d+)?)\s*GT/s", text or "")
    return float(match[1]) if match else None


def _aer(path: str) -> AerCounts:
    return AerCounts(
        correctable=_aer_total(read_text(f"{path}/aer_dev_correctable")),
        nonfatal=_aer_total(read_text(f"{path}/aer_dev_nonfatal")),
        fatal=_aer_total(read_text(f"{path}/aer_dev_fatal")),
    )


def _aer_total(text: str | None) -> int | None:
    """The file's TOTAL line, or the sum of its counters where it has none."""
    if not text:
        return None
    counts: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if value.isdigit():
            counts[name.strip()] = int(value)
    totals = [count for name, count in counts.items() if name.startswith("TOTAL")]
    if totals:
        return totals[0]
    return sum(counts.values()) if counts else None


def fingerprint(sys_root: str, bus_ids: tuple[str, ...]) -> object:
    """What changes on the bus without an event, of these functions, read cheaply."""
    folder = f"{sys_root}/bus/pci/devices"
    return [
        (responding(f"{folder}/{bus_id}"), read(f"{folder}/{bus_id}/aer_dev_fatal"))
        for bus_id in bus_ids
    ]


def outline(sys_root: str) -> object:
    """What events would tell of, read cheaply: the functions, their drivers, and how
    many directories each has (a device node's is one)."""
    folder = f"{sys_root}/bus/pci/devices"
    return [
        (bus_id, link_name(f"{folder}/{bus_id}/driver"), _links_to(f"{folder}/{bus_id}"))
        for bus_id in spu_bus_ids(sys_root)
    ]


def _links_to(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_ino, status.st_nlink
