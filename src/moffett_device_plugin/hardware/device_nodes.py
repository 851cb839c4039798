"""Whose each character device is: a PCI function's own, or shared by all SPUs.

`/sys/dev/char` holds a link for every character device of the machine, hundreds of
them, so it is read once a scan; a link's text alone says which function it is under.

A driver may create its nodes without a parent device. sysfs then shows them below
`devices/virtual` and does not say whose each one is. They are matched by order, and only
where that leaves no choice: as many nodes alike as there are devices without one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..runtime.resource_exhausted import is_resource_exhausted
from .node_patterns import match_node, matches_any
from .pci import is_passthrough, sysfs_bus_id
from .sysfs import link_name, read_text
from .types import DeviceNode, PciFunction

#: Classes that unrelated drivers share: being in one says nothing about the SPU.
GENERIC_CLASSES = frozenset({"accel", "drm", "mem", "misc", "vfio", "dma_heap"})
#: Classes of nodes that a driver registers with another subsystem, beside its own: a
#: clock, a sensor, a flash. No workload computes with them.
FOREIGN_CLASSES = frozenset(
    {"block", "cec", "firmware_upload", "gpio", "graphics", "hwmon", "i2c-dev", "input", "leds",
     "media", "mtd", "net", "nvmem", "pps", "ptp", "rpmsg", "rtc", "sound", "spidev", "tpm",
     "tpmrm", "tty", "usbmisc", "video4linux", "watchdog"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A character device, the class (`subsystem`) that its driver put it in, and its
    major and minor number."""

    node: DeviceNode
    subsystem: str | None
    number: tuple[int, int]

    @property
    def path(self) -> str:
        return self.node.host_path


@dataclass(frozen=True, slots=True)
class CharacterDevices:
    """The sysfs directories of all character devices, by their numbers: those below each
    PCI function, those of no hardware, and all of them."""

    by_function: Mapping[str, Mapping[tuple[int, int], str]] = field(default_factory=dict)
    virtual: Mapping[tuple[int, int], str] = field(default_factory=dict)
    every: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What is configured of device nodes, as patterns of host paths.

    `control`: every container gets these. `templates`: each gives every device one node;
    `{index}` in it stands for a number, by which the nodes are ordered (else by minor).
    `ignored`: nodes that no container gets.
    """

    control: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


#: For each template or kind of node, who has which: by bus ID and incarnation.
Assignments = Mapping[str, Mapping[tuple[str, int], FoundNode]]


@dataclass(frozen=True, slots=True)
class NodeMap:
    """`by_function`: the nodes of each function, by bus ID. `unmatched`: nodes of the
    SPU driver of which nothing says whose they are."""

    by_function: Mapping[str, Sequence[FoundNode]] = field(default_factory=dict)
    control: tuple[DeviceNode, ...] = ()
    unmatched: tuple[str, ...] = ()
    assignments: Assignments = field(default_factory=dict)


def list_character_devices(sys_root: str) -> CharacterDevices:
    by_function: dict[str, dict[tuple[int, int], str]] = {}
    virtual: dict[tuple[int, int], str] = {}
    every: dict[tuple[int, int], str] = {}
    folder = f"{sys_root}/dev/char"
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        if is_resource_exhausted(error):
            raise
        return CharacterDevices()
    for name in names:
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", name, re.ASCII)
        if match is None:
            continue
        number = int(match[1]), int(match[2])
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError:
            continue
        if "/devices/" not in target:  # by way of another link, such as its class's
            target = os.path.realpath(f"{folder}/{name}")
        path = os.path.normpath(os.path.join(folder, target))  # noqa: PTH118
        every[number] = path
        if "/devices/virtual/" in path:
            virtual[number] = path
        elif owner := _nearest_function(path):
            by_function.setdefault(owner, {})[number] = path
    return CharacterDevices(by_function, virtual, every)


def _nearest_function(path: str) -> str | None:
    for part in reversed(path.split("/")):
        if ":" in part and sysfs_bus_id(part) == part:
            return part
    return None


def own_nodes(bus_id: str, devices: CharacterDevices) -> tuple[FoundNode, ...]:
    """Every character device below the function, in natural order, but for those of
    other subsystems."""
    found = _nodes_of(devices.by_function.get(bus_id, {}))
    return _in_order(node for node in found if node.subsystem not in FOREIGN_CLASSES)


def natural(path: str) -> str:
    """Sorts spu10 after spu9."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), path)


def _in_order(nodes: Iterable[FoundNode]) -> tuple[FoundNode, ...]:
    by_path: dict[str, FoundNode] = {}
    for node in nodes:
        by_path.setdefault(node.path, node)
    return tuple(by_path[path] for path in sorted(by_path, key=natural))


def _nodes_of(folders: Mapping[tuple[int, int], str]) -> Iterator[FoundNode]:
    for number, folder in folders.items():
        if (node := _node_of(folder, number)) is not None:
            yield node


def _node_of(folder: str, number: tuple[int, int]) -> FoundNode | None:
    """The node of a sysfs device directory, None for a block device or no device."""
    if not os.path.isdir(folder):  # noqa: PTH112  (a link that outlived its device)
        return None
    subsystem = link_name(f"{folder}/subsystem")
    if subsystem == "block":
        return None
    uevent = read_text(f"{folder}/uevent") or ""
    fields = dict(line.split("=", 1) for line in uevent.splitlines() if "=" in line)
    # sysfs writes a '/' inside a device's name as '!'.
    name = fields.get("DEVNAME") or folder.rpartition("/")[2].replace("!", "/")
    name = name.removeprefix("/dev/")
    # The kubelet, the log and the terminal take no others.
    if not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")):
        return None
    return FoundNode(DeviceNode(f"/dev/{name}", f"/dev/{name}"), subsystem, number)


# -- whose is it ----------------------------------------------------------------------


def map_nodes(
    functions: Sequence[PciFunction],
    own: Mapping[str, Sequence[FoundNode]],
    devices: CharacterDevices,
    related: Collection[str],
    majors: Mapping[int, str],
    settings: NodeSettings = NodeSettings(),
    previous: Assignments | None = None,
) -> NodeMap:
    """`functions` come in bus order. `related` are the names of the SPU's driver and its
    module, `majors` those under which drivers registered their majors: a node without a
    parent is the SPU driver's when its class or its major has such a name."""
    own = {
        bus_id: [node for node in nodes if not matches_any(node.path, settings.ignored)]
        for bus_id, nodes in own.items()
    }
    classes = {node.subsystem for nodes in own.values() for node in nodes if node.subsystem}
    names = (classes | set(related)) - GENERIC_CLASSES - FOREIGN_CLASSES
    shared = [
        node
        for node in _nodes_of(_of_names(devices.virtual, names, majors))
        if not matches_any(node.path, settings.ignored)
    ]
    bound = [f for f in functions if f.driver is not None and not is_passthrough(f.driver)]
    if settings.templates:
        candidates = list(_nodes_of(devices.virtual)) + [n for nodes in own.values() for n in nodes]
        groups = {t: _by_template(candidates, t) for t in settings.templates}
        without = bound
    else:
        groups = _alike(shared)
        without = [f for f in bound if not own.get(f.bus_id)]
    assignments = {
        key: _assign(without, nodes, (previous or {}).get(key, {})) for key, nodes in groups.items()
    }
    by_function: dict[str, list[FoundNode]] = {
        bus_id: [] if settings.templates else list(nodes) for bus_id, nodes in own.items()
    }
    for assigned in assignments.values():
        for (bus_id, _), node in assigned.items():
            by_function.setdefault(bus_id, []).append(node)
    taken = {node.path for nodes in (*by_function.values(), *own.values()) for node in nodes}
    alike = [group for group in _alike(shared).values() if len(group) > 1]
    several = {node.path for group in alike for node in group}
    control = {n.path: n.node for n in shared if n.path not in taken | several}
    if settings.control:
        one_each = {n.path for group in alike if len(group) == len(bound) for n in group}
        for node in _nodes_of(devices.every):
            if node.path in taken | one_each or matches_any(node.path, settings.ignored):
                continue
            if matches_any(node.path, settings.control):
                control[node.path] = node.node
    return NodeMap(
        {bus_id: _in_order(nodes) for bus_id, nodes in by_function.items()},
        tuple(control[path] for path in sorted(control, key=natural)),
        tuple(sorted(several - taken - set(control), key=natural)),
        {key: assigned for key, assigned in assignments.items() if assigned},
    )


def _of_names(
    virtual: Mapping[tuple[int, int], str], names: Collection[str], majors: Mapping[int, str]
) -> dict[tuple[int, int], str]:
    plain = {_plain(name) for name in names}
    return {
        number: path
        for number, path in virtual.items()
        if _plain(path.partition("/devices/virtual/")[2].split("/")[0]) in plain
        or _plain(majors.get(number[0], "")) in plain
    }


def _plain(name: str) -> str:
    return name.replace("-", "_").lower()


def _alike(nodes: Iterable[FoundNode]) -> dict[str, Sequence[FoundNode]]:
    """Nodes whose paths differ in their numbers only, by the path without them."""
    groups: dict[str, list[FoundNode]] = {}
    for node in nodes:
        kind = re.sub(r"\d+", "#", node.path)
        if kind != node.path:
            groups.setdefault(kind, []).append(node)
    return {kind: _in_order(alike) for kind, alike in groups.items()}


def _by_template(nodes: Iterable[FoundNode], template: str) -> Sequence[FoundNode]:
    """In the order of the number that `{index}` stands for, else of their own numbers."""
    found: dict[FoundNode, tuple[int, ...]] = {}
    for node in nodes:
        if (numbers := match_node(template, node.path)) is not None:
            found[node] = numbers or node.number
    return sorted(found, key=lambda node: found[node])


def _assign(
    functions: Sequence[PciFunction],
    nodes: Sequence[FoundNode],
    previous: Mapping[tuple[str, int], FoundNode],
) -> dict[tuple[str, int], FoundNode]:
    """Who had a node keeps it while both are there. The others get the rest in order,
    if there are as many of the one as of the other."""
    keys = [(function.bus_id, function.incarnation) for function in functions]
    assigned = {key: previous[key] for key in keys if previous.get(key) in nodes}
    waiting = [key for key in keys if key not in assigned]
    free = [node for node in nodes if node not in assigned.values()]
    if len(waiting) == len(free):
        assigned.update(zip(waiting, free, strict=True))
    return assigned


def read_majors(text: str | None) -> dict[int, str]:
    """The character devices of `/proc/devices`: names by major number."""
    majors: dict[int, str] = {}
    for line in (text or "").partition("Block devices:")[0].splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdecimal() and len(number) < 10:
            majors.setdefault(int(number), name.strip())
    return majors
