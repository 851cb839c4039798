"""Where news of devices comes from: the kernel's uevents, inotify, or a clock.

A source yields once when it begins to listen, and after that whenever something may
have changed. It raises OSError where it cannot listen; the next one is used then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from ..runtime.inotify import ENTRIES, Inotify, Mask
from . import sysfs
from .mounts import file_system_of, mountinfo
from .resolve import HostRoot
from .uevents import concerns_devices, open_uevents, reach

log = logging.getLogger(__name__)

#: Seconds between scans where no other source can be used.
POLL_PERIOD = 2.0
#: Seconds in which a burst of events (a card brings many) is gathered into one.
GATHER = 0.02


class EventSource(Protocol):
    def events(self) -> AsyncGenerator[None, None]: ...


class NetlinkEvents:
    """The kernel's uevents."""

    async def events(self) -> AsyncGenerator[None, None]:
        if not reach():
            raise OSError(errno.ENONET, "uevents do not reach this network namespace")
        with open_uevents() as sock:
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
                    if concerns_devices(message):
                        relevant.set()

            relevant.set()  # for what happened before the socket was bound
            async for _ in _signals(sock.fileno(), drain, relevant):
                yield


class InotifyEvents:
    """For a tree of ordinary files: watches on every directory that is read. The kernel
    reports no change of sysfs this way."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sys = str(root / "sys")

    async def events(self) -> AsyncGenerator[None, None]:
        with closing(Inotify()) as inotify:
            relevant = asyncio.Event()

            def drain() -> None:
                if any(True for _ in inotify.read()):
                    relevant.set()

            watched = self._watch_tree(inotify)
            relevant.set()  # for what happened before the watches were set
            async for _ in _signals(inotify.fd, drain, relevant):
                yield
                # What was made before its directory was watched caused no event.
                while (now := self._watch_tree(inotify)) != watched:
                    watched = now
                    yield

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


class PollEvents:
    """A look every `period` seconds."""

    def __init__(self, period: float = POLL_PERIOD) -> None:
        self._period = period

    async def events(self) -> AsyncGenerator[None, None]:
        while True:
            yield
            await asyncio.sleep(self._period)


class FirstOf:
    """The first of these sources that can be used."""

    def __init__(self, *sources: EventSource) -> None:
        self.sources = sources

    async def events(self) -> AsyncGenerator[None, None]:
        for source in self.sources:
            try:
                async for _ in source.events():
                    yield
            except OSError as error:
                extra = {"source": type(source).__name__, "error": error.strerror}
                log.warning("event-source-unavailable", extra=extra)


def default_events(root: Path) -> EventSource:
    """For the sysfs or the ordinary files below `root`."""
    bus = HostRoot(root).nearest("/sys/bus/pci/devices")
    if file_system_of(bus, mountinfo()) == "sysfs":
        return FirstOf(NetlinkEvents(), PollEvents())
    return FirstOf(InotifyEvents(root), PollEvents())


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
