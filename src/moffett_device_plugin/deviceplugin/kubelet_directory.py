"""What is in the kubelet's plugin directory, as it changes.

A restarted kubelet is a new `kubelet.sock`. The new socket often has the old one's
inode number, so its change time counts too, and each event of its making.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..api import KUBELET_SOCKET
from ..runtime.inotify import ENTRIES, Inotify, Mask
from ..runtime.resource_exhausted import is_resource_exhausted
from ..runtime.watchable import Watchable

log = logging.getLogger(__name__)

#: Seconds between scans where inotify is not available.
SCAN_PERIOD = 0.01
#: Seconds between scans for what has no event (a mount over the directory, say).
SAFETY_PERIOD = 10.0


@dataclass(frozen=True, slots=True)
class Listing:
    """The sockets in the directory, as (inode, change time in ns) by name.

    `made` counts how often a kubelet.sock was seen to be made.
    """

    sockets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    made: int = 0
    exists: bool = False

    @property
    def kubelet(self) -> tuple[int, int, int] | None:
        """Differs between any two kubelets; None while there is none."""
        socket = self.sockets.get(KUBELET_SOCKET)
        return None if socket is None else (*socket, self.made)


class KubeletDirectory:
    """`listing` is always the newest; `run` keeps it so until it is cancelled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listing: Watchable[Listing] = Watchable(Listing())
        self._made = 0

    async def run(self) -> None:
        self.rescan()
        try:
            inotify = Inotify()
        except OSError as error:
            await self._scan_often(error)
            return
        try:
            await self._follow(inotify)
        except OSError as error:  # no watches left
            await self._scan_often(error)
        finally:
            inotify.close()

    def rescan(self) -> None:
        """Lists the directory here and now."""
        try:
            with os.scandir(self.path) as entries:
                sockets = {
                    entry.name: (status.st_ino, status.st_ctime_ns)
                    for entry in entries
                    if (status := _status(entry)) is not None and stat.S_ISSOCK(status.st_mode)
                }
            listing = Listing(sockets, self._made, exists=True)
        except OSError as error:
            if is_resource_exhausted(error):
                return  # what was seen last stands
            listing = Listing(made=self._made)
        if listing != self.listing.value:
            self.listing.set(listing)

    async def _follow(self, inotify: Inotify) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def drain() -> None:
            for event in inotify.read():
                changed.set()
                if event.name == KUBELET_SOCKET and event.mask & (Mask.CREATE | Mask.MOVED_TO):
                    self._made += 1
            # Reads the directory, and no more: a task for it would cost time that a new kubelet
            # spends with no devices.
            self.rescan()

        loop.add_reader(inotify.fd, drain)
        try:
            while True:
                self._watch(inotify)
                self.rescan()
                changed.clear()
                try:
                    async with asyncio.timeout(SAFETY_PERIOD):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            loop.remove_reader(inotify.fd)

    def _watch(self, inotify: Inotify) -> None:
        """Watches the directory, or while it is missing the nearest one above it."""
        folder = self.path
        while True:
            try:
                inotify.watch(folder, ENTRIES | Mask.ONLYDIR)
            except (FileNotFoundError, NotADirectoryError):
                if folder == folder.parent:
                    return
                folder = folder.parent
            else:
                return

    async def _scan_often(self, error: OSError) -> None:
        log.warning(
            "inotify-unavailable",
            extra={
                "error": error.strerror,
                "effect": f"the kubelet's directory is read every {SCAN_PERIOD:g} s instead",
                "remedy": "raise fs.inotify.max_user_instances or max_user_watches",
            },
        )
        while True:
            await asyncio.sleep(SCAN_PERIOD)
            self.rescan()


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None
