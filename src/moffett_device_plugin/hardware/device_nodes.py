"""Whose each character device is: a PCI function's own, or shared by all SPUs.

`/sys/dev/char` holds a link for every character device of the machine, hundreds of
them, so it is read once a scan; a link's text alone says which function it is under.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ..runtime.resource_exhausted import is_resource_exhausted
from .pci import sysfs_bus_id
from .sysfs import FoundNode, link_name, read_text
from .types import DeviceNode, PciFunction

#: Classes that unrelated drivers share: being in one says nothing about the SPU.
GENERIC_CLASSES = frozenset(
    {"accel", "drm", "graphics", "hwmon", "input", "mem", "misc", "tty", "vfio", "block"}
)


@dataclass(frozen=True, slots=True)
class CharacterDevices:
    """The sysfs directories of all character devices: by the PCI function that each is
    under, those of no hardware, and all of them."""

    by_function: Mapping[str, Sequence[str]] = field(default_factory=dict)
    virtual: Sequence[str] = ()
    every: Sequence[str] = ()


def list_character_devices(sys_root: str) -> CharacterDevices:
    by_function: dict[str, list[str]] = {}
    virtual: list[str] = []
    every: list[str] = []
    folder = f"{sys_root}/dev/char"
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        if is_resource_exhausted(error):
            raise
        return CharacterDevices()
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError:
            continue
        if "/devices/" not in target:  # by way of another link, such as its class's
            target = os.path.realpath(f"{folder}/{name}")
        path = os.path.normpath(os.path.join(folder, target))  # noqa: PTH118
        every.append(path)
        if "/devices/virtual/" in path:
            virtual.append(path)
        elif owner := _nearest_function(path):
            by_function.setdefault(owner, []).append(path)
    return CharacterDevices(by_function, virtual, every)


def _nearest_function(path: str) -> str | None:
    for part in reversed(path.split("/")):
        if ":" in part and sysfs_bus_id(part) == part:
            return part
    return None


def nodes_of_function(
    sys_root: str, bus_id: str, devices: CharacterDevices, *, walk: bool
) -> tuple[FoundNode, ...]:
    """Every character device below the function, in natural order. `walk` looks into
    its directory too, for a tree in which `dev/char` does not tell everything."""
    folders: list[str] = list(devices.by_function.get(bus_id, ()))
    if walk:
        folders += _device_folders(os.path.realpath(f"{sys_root}/bus/pci/devices/{bus_id}"))
    found: dict[str, FoundNode] = {}
    for folder in folders:
        if (node := _node_of(folder)) is not None:
            found.setdefault(node.node.host_path, node)
    return tuple(sorted(found.values(), key=lambda one: natural(one.node.host_path)))


def natural(path: str) -> str:
    """Sorts spu10 after spu9."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), path)


def _device_folders(real: str) -> Iterator[str]:
    for folder, folders, files in os.walk(real, onerror=_raise_exhaustion):
        # Another function below this one (it is a bridge then) has its own nodes.
        folders[:] = [name for name in folders if sysfs_bus_id(name) is None and name != "power"]
        if "dev" in files and folder != real:
            yield folder


def _raise_exhaustion(error: OSError) -> None:
    if is_resource_exhausted(error):
        raise error


def _node_of(folder: str) -> FoundNode | None:
    """The node of a sysfs device directory, None for a block device or no device."""
    if not os.path.isdir(folder):  # noqa: PTH112  (a link that outlived its device)
        return None
    subsystem = link_name(f"{folder}/subsystem")
    if subsystem == "block" or Path(folder).parent.name == "block":
        return None
    uevent = read_text(f"{folder}/uevent") or ""
    fields = dict(line.split("=", 1) for line in uevent.splitlines() if "=" in line)
    # sysfs writes a '/' inside a device's name as '!'.
    name = fields.get("DEVNAME") or Path(folder).name.replace("!", "/")
    name = name.removeprefix("/dev/")
    # The kubelet, the log and the terminal take no others.
    if not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")):
        return None
    return FoundNode(DeviceNode(f"/dev/{name}", f"/dev/{name}"), subsystem)


def control_nodes(
    sys_root: str,
    functions: Sequence[PciFunction],
    globs: Sequence[str],
    devices: CharacterDevices,
) -> tuple[DeviceNode, ...]:
    """Nodes that belong to no function but to all: of the SPUs' own class or driver
    below devices/virtual, and those whose path matches one of `globs`."""
    drivers: set[str] = {f.driver for f in functions if f.driver}
    classes = drivers.union(*(function.node_classes for function in functions))
    folders: list[str] = []
    for name in sorted(classes - GENERIC_CLASSES):
        folders += _device_folders(f"{sys_root}/devices/virtual/{name}")
    folders += (path for path in devices.virtual if _bound_to(path, drivers))
    found = [node.node for folder in folders if (node := _node_of(folder)) is not None]
    if globs:
        found += _matching(devices.every, globs)
    own = {node.host_path for function in functions for node in function.nodes}
    shared = {node.host_path: node for node in found if node.host_path not in own}
    return tuple(shared[path] for path in sorted(shared, key=natural))


def _bound_to(path: str, drivers: Collection[str | None]) -> bool:
    return link_name(f"{path}/driver") in drivers or link_name(f"{path}/device/driver") in drivers


def _matching(folders: Iterable[str], globs: Sequence[str]) -> Iterator[DeviceNode]:
    for folder in folders:
        node = _node_of(folder)
        if node is not None and any(fnmatchcase(node.node.host_path, glob) for glob in globs):
            yield node.node
