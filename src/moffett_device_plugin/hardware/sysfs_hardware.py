"""The real machine, below a path prefix."""

from __future__ import annotations

import asyncio
import glob
import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..runtime.inotify import ENTRIES, Inotify, Mask
from . import device_nodes as nodes
from . import sola, sysfs, uevents
from .mounts import file_system_of, mountinfo
from .probes import Probes
from .smi_command import SmiCommand, launch_of
from .types import BusScan, DeviceNode, Mount, PciFunction, SmiReport

_CAP_SYS_CHROOT = 18
#: Seconds between looks at the bus where neither netlink nor inotify is to be had.
RESCAN_PERIOD = 0.5
#: Seconds in which a burst of events (a card brings many) is gathered into one.
GATHER = 0.02


class SysfsHardware:
    """A machine whose `sys`, `dev`, `usr/bin/mx-smi` and `usr/local/sola` are below
    `root`. Paths told to others are always the host's own, without the prefix."""

    def __init__(
        self,
        root: Path,
        smi: str | None = None,
        smi_deadline: float = 5.0,
        control_node_globs: tuple[str, ...] = (),
    ) -> None:
        self._root = root
        self._sys = str(root / "sys")
        self._globs = control_node_globs
        self._probes = Probes()
        mounts = mountinfo()
        self._sysfs_is_real = file_system_of(root / "sys", mounts) == "sysfs"
        # A container's /dev is a copy made when it started, and says nothing.
        self._dev_is_live = file_system_of(root / "dev", mounts) == "devtmpfs"
        can_chroot = _has_capability(_CAP_SYS_CHROOT)
        self._smi = SmiCommand(lambda: launch_of(root, smi, can_chroot=can_chroot), smi_deadline)

    @property
    def has_smi(self) -> bool:
        return self._smi.present

    def scan(self) -> BusScan:
        bus_ids = sysfs.spu_bus_ids(self._sys)
        self._probes.aim([f"{self._sys}/bus/pci/devices/{bus_id}" for bus_id in bus_ids])
        if not bus_ids:
            return BusScan()
        devices = nodes.list_character_devices(self._sys)
        functions: list[PciFunction] = []
        for bus_id in bus_ids:
            found = nodes.nodes_of_function(
                self._sys, bus_id, devices, walk=not self._sysfs_is_real
            )
            function = sysfs.read_function(self._sys, bus_id, found)
            if function is not None:
                functions.append(self._with_missing_nodes(function))
        shared = nodes.control_nodes(self._sys, functions, self._globs, devices)
        control = {node.host_path: node for node in shared}
        own = {node.host_path for function in functions for node in function.nodes}
        for path in self._globbed_nodes():
            if path not in own:
                control.setdefault(path, DeviceNode(path, path))
        return BusScan(tuple(functions), tuple(control.values()))

    def fingerprint(self) -> object:
        return self._probes.look()

    async def query_smi(self) -> SmiReport:
        return await self._smi.query()

    def sola_version(self) -> str | None:
        return sola.sola_version(self._root)

    def sola_mounts(self) -> tuple[Mount, ...] | None:
        return sola.sola_mounts(self._root)

    def _with_missing_nodes(self, function: PciFunction) -> PciFunction:
        if not self._dev_is_live:
            return function
        missing = tuple(
            node.host_path
            for node in function.nodes
            if not (self._root / node.host_path.lstrip("/")).exists()
        )
        return replace(function, missing_nodes=missing) if missing else function

    def _globbed_nodes(self) -> list[str]:
        """Control nodes that this side's view of /dev shows, as host paths."""
        found: list[str] = []
        for pattern in self._globs:
            for path in glob.glob(str(self._root / pattern.lstrip("/"))):  # noqa: PTH207
                if Path(path).is_char_device():
                    found.append("/" + os.path.relpath(path, self._root))
        return found

    # -- events -------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[None, None]:
        if self._sysfs_is_real:
            with suppress(OSError):
                async for _ in self._kernel_events():
                    yield
        else:
            with suppress(OSError):
                async for _ in self._directory_events():
                    yield
        async for _ in self._rescans():
            yield

    async def _kernel_events(self) -> AsyncGenerator[None, None]:
        with uevents.open_uevents() as sock:
            relevant = asyncio.Event()

            def drain() -> None:
                while True:
                    try:
                        message = sock.recv(65_536)
                    except BlockingIOError:
                        return
                    except OSError:  # ENOBUFS: some were lost, so look at everything
                        relevant.set()
                        return
                    if uevents.concerns_devices(message):
                        relevant.set()

            relevant.set()  # for what happened before anybody listened
            async for _ in _signals(sock.fileno(), drain, relevant):
                yield

    async def _directory_events(self) -> AsyncGenerator[None, None]:
        """For a tree of ordinary files: watches on every directory that is read."""
        inotify = Inotify()
        try:
            relevant = asyncio.Event()

            def drain() -> None:
                if any(True for _ in inotify.read()):
                    relevant.set()

            watched = self._watch_tree(inotify)
            relevant.set()  # for what happened before anybody listened
            async for _ in _signals(inotify.fd, drain, relevant):
                yield
                # What was made before its directory was watched told nobody.
                while (now := self._watch_tree(inotify)) != watched:
                    watched = now
                    yield
        finally:
            inotify.close()

    def _watch_tree(self, inotify: Inotify) -> frozenset[int]:
        devices = Path(self._sys, "bus/pci/devices")
        folders = {Path(self._sys, "dev/char"), self._root / "usr/local"}
        # Up to the nearest directory that exists, where the missing one will appear.
        folder = devices
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        folders.add(folder)
        # A function whose files are not all there yet is not known for an SPU.
        folders |= {devices / name for name in sysfs.unread_functions(self._sys)}
        for bus_id in sysfs.spu_bus_ids(self._sys):
            for path, _, _ in os.walk(os.path.realpath(devices / bus_id)):
                folders.add(Path(path))
        watches: set[int] = set()
        for folder in folders:
            with suppress(FileNotFoundError, NotADirectoryError):
                watches.add(inotify.watch(folder, ENTRIES | Mask.CLOSE_WRITE))
        return frozenset(watches)

    async def _rescans(self) -> AsyncGenerator[None, None]:
        known: object = None
        while True:
            try:
                seen = sysfs.outline(self._sys)
            except OSError:  # no descriptors: a look, which tells of it, and soon another
                seen = object()
            if seen != known:
                known = seen
                yield
            await asyncio.sleep(RESCAN_PERIOD)


async def _signals(
    fd: int, drain: Callable[[], None], relevant: asyncio.Event
) -> AsyncGenerator[None, None]:
    """Yields once for each burst in which `drain`, called when `fd` is readable, set
    `relevant`; at once for the first event, and again when the burst has ended."""
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, drain)
    try:
        while True:
            await relevant.wait()
            relevant.clear()
            yield
            await asyncio.sleep(GATHER)
    finally:
        loop.remove_reader(fd)


def _has_capability(number: int) -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(match and int(match[1], 16) >> number & 1)
