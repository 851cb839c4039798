"""Other copies of this plugin on the node, seen by their sockets.

A kubelet sends a resource's calls to whoever registered last, and takes the end of
that one for the end of the resource, whoever else still serves it. So every copy
keeps a silent connection to each other one: its end is the other's end, also by
SIGKILL, and then the survivor registers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ..latest import Latest

log = logging.getLogger(__name__)


class _Line(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


#: Seconds after which a socket that nobody listens on is taken for left behind; a
#: copy that starts binds its socket a moment before it listens.
STALE_AFTER = 0.2


class Peers:
    """`alive` are the copies that run now; `departures` counts those that have gone,
    or taken their socket away to go, since this one began."""

    def __init__(self, directory: Path, prefix: str, own: str, tasks: asyncio.TaskGroup) -> None:
        self._directory = directory
        self._prefix = prefix
        self._own = own
        self._tasks = tasks
        self._present: frozenset[str] = frozenset()
        self._followed: set[str] = set()
        self.alive: set[str] = set()
        self.departures: Latest[int] = Latest(0)

    def see(self, sockets: Collection[str]) -> None:
        """Call with the directory's sockets whenever they change."""
        present = frozenset(
            name for name in sockets if name.startswith(self._prefix) and name != self._own
        )
        leaving = (self._present - present) & self.alive
        self._present = present
        for name in present - self._followed:
            self._followed.add(name)
            self._tasks.create_task(self._follow(name))
        if leaving:
            self.departures.set(self.departures.value + len(leaving))

    async def _follow(self, name: str) -> None:
        try:
            line = await self._connect(name)
            if line is None:
                return
            log.info("another-copy", extra={"socket": name})
            self.alive.add(name)
            await line.lost.wait()
            self.alive.discard(name)
            log.info("another-copy-ended", extra={"socket": name})
            if name in self._present:  # else its departure has been counted
                self._remove(name)
                self.departures.set(self.departures.value + 1)
        finally:
            self._followed.discard(name)

    async def _connect(self, name: str) -> _Line | None:
        """None when nobody listens there; the socket is removed then."""
        loop = asyncio.get_running_loop()
        for delay in (STALE_AFTER, None):
            try:
                _, line = await loop.create_unix_connection(_Line, str(self._directory / name))
            except ConnectionRefusedError:
                if delay is not None:
                    await asyncio.sleep(delay)
                    continue
                self._remove(name)
                log.info("stale-socket-removed", extra={"socket": name})
            except OSError:
                pass  # it went while we looked
            else:
                return line
            return None
        return None

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            (self._directory / name).unlink()
