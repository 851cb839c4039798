"""The real machine, below a path prefix."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from . import Look, sola, sysfs
from .device_nodes import (
    Assignments,
    CharacterDevices,
    FoundNode,
    NodeSettings,
    list_character_devices,
    map_nodes,
    own_nodes,
    read_majors,
)
from .event_sources import EventSource, default_events
from .mounts import file_system_of, mountinfo
from .registers import RegisterReader
from .resolve import HostRoot
from .smi_command import SmiCommand, launch_of
from .smi_source import SmiSource
from .types import BusScan, DeviceNode, Mount, PciFunction, SmiReport

_CAP_SYS_CHROOT = 18


class SysfsHardware:
    """A machine whose `sys`, `dev`, `usr/bin/mx-smi` and `usr/local/sola` are below
    `root`. Paths in its values are always the host's own, without the prefix.

    `events` says when something may have changed; None for the best that there is for
    this root. With `virtual_functions`, those of SR-IOV are devices like any other.
    `smi_source` is asked in place of the mx-smi that is found here.

    `node_numbers` has major and minor of the devices' nodes, by host path, as of the last
    scan.
    """

    def __init__(
        self,
        root: Path,
        smi: str | None = None,
        smi_deadline: float = 5.0,
        nodes: NodeSettings | None = None,
        events: EventSource | None = None,
        *,
        virtual_functions: bool = False,
        smi_source: SmiSource | None = None,
    ) -> None:
        self._root = root
        self._host = HostRoot(root)
        self._sys = str(root / "sys")
        self._node_settings = nodes or NodeSettings()
        self._virtual_functions = virtual_functions
        self._events = events or default_events(root)
        self._registers = RegisterReader()
        self._assignments: Assignments = {}
        # A container's /dev is a copy made when it started, and is not updated.
        self._dev_is_live = file_system_of(root / "dev", mountinfo()) == "devtmpfs"
        self._smi = smi_source or own_smi(root, smi, smi_deadline)
        self.node_numbers: Mapping[str, tuple[int, int]] = {}

    @property
    def has_smi(self) -> bool:
        return self._smi.present

    def scan(self, look: Look) -> BusScan:
        look.begin(None)
        bus_ids = sysfs.spu_bus_ids(self._sys)
        virtual: list[str] = []
        if not self._virtual_functions:
            virtual = [bus_id for bus_id in bus_ids if sysfs.is_virtual(self._sys, bus_id)]
            bus_ids = [bus_id for bus_id in bus_ids if bus_id not in virtual]
        self._registers.aim([f"{self._sys}/bus/pci/devices/{bus_id}" for bus_id in bus_ids])
        registers = self._registers.read(look)
        if not bus_ids:
            return BusScan(virtual_functions=tuple(virtual), registers=registers)
        functions: list[PciFunction] = []
        for bus_id in bus_ids:
            look.begin(bus_id)
            if (function := sysfs.read_function(self._sys, bus_id, registers[bus_id])) is not None:
                functions.append(function)
        look.begin(None)
        devices = list_character_devices(self._sys)
        drivers = [function.driver for function in functions if function.driver]
        nodes = map_nodes(
            functions,
            own := {bus_id: own_nodes(bus_id, devices) for bus_id in bus_ids},
            devices,
            sysfs.driver_names(self._sys, drivers),
            read_majors(sysfs.read_text(str(self._root / "proc/devices"))),
            self._node_settings,
            self._assignments,
        )
        look.begin(None)
        self._assignments = nodes.assignments
        every = chain(*own.values(), *nodes.by_function.values())
        self.node_numbers = {found.path: found.number for found in every}
        control = {node.host_path: node for node in nodes.control}
        taken = {
            node.path for found in (*own.values(), *nodes.by_function.values()) for node in found
        }
        for node in self._globbed_nodes(devices):
            if node.host_path not in taken and node.host_path not in nodes.unmatched:
                control.setdefault(node.host_path, node)
        return BusScan(
            tuple(self._with_nodes(f, nodes.by_function.get(f.bus_id, ())) for f in functions),
            tuple(control.values()),
            nodes.unmatched,
            tuple(virtual),
            registers,
        )

    def registers(self, look: Look) -> object:
        return self._registers.read(look)

    def events(self) -> AsyncGenerator[None, None]:
        return self._events.events()

    async def query_smi(self) -> SmiReport:
        return await self._smi.query()

    def sola_version(self) -> str | None:
        return sola.sola_version(self._host)

    def sola_mounts(self) -> tuple[Mount, ...] | None:
        return sola.sola_mounts(self._host)

    def _with_nodes(self, function: PciFunction, found: Sequence[FoundNode]) -> PciFunction:
        nodes = tuple(one.node for one in found)
        missing: tuple[str, ...] = ()
        if self._dev_is_live:
            missing = tuple(
                node.host_path
                for node in nodes
                if not (self._root / node.host_path.lstrip("/")).exists()
            )
        return replace(function, nodes=nodes, missing_nodes=missing)

    def _globbed_nodes(self, devices: CharacterDevices) -> list[DeviceNode]:
        """Control nodes that this side's view of /dev shows: the node itself where the
        glob matches a link to it, under the name that was asked for."""
        found: list[DeviceNode] = []
        for pattern in self._node_settings.control:
            for path in glob.glob(str(self._root / pattern.lstrip("/"))):  # noqa: PTH207
                asked = "/" + os.path.relpath(path, self._root)
                real = self._host.resolve(asked)
                if self._is_there(real, devices):
                    found.append(DeviceNode(real, asked))
        return found

    def _is_there(self, path: str, devices: CharacterDevices) -> bool:
        """Whether it is a character device, on the host too: a container's /dev keeps
        the nodes of drivers that have gone."""
        try:
            status = (self._root / path.lstrip("/")).lstat()
        except OSError:
            return False
        if not stat.S_ISCHR(status.st_mode):
            return False
        number = os.major(status.st_rdev), os.minor(status.st_rdev)
        # A driver without a class has nodes that sysfs does not list at all.
        listed = number in devices.every or number[0] not in {major for major, _ in devices.every}
        return self._dev_is_live or listed


def own_smi(root: Path, command: str | None, deadline: float) -> SmiCommand:
    """The mx-smi that this process runs itself: `command`, or the host root's own."""
    can_chroot = _has_capability(_CAP_SYS_CHROOT)
    return SmiCommand(lambda: launch_of(root, command, can_chroot=can_chroot), deadline)


def _has_capability(number: int) -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(match and int(match[1], 16) >> number & 1)
