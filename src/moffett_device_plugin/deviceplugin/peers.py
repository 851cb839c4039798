"""Other copies of this plugin on the node, seen by their sockets.

A kubelet sends a resource's calls to whoever registered last, and takes the end of
that one for the end of the resource, whoever else still serves it. So every copy
keeps a silent connection to each other one: its end is the other's end, also by
SIGKILL, and then the survivor registers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..runtime.watchable import Watchable
from .socket_names import instance_of

log = logging.getLogger(__name__)


class _Line(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


#: Seconds after which a socket that nobody listens on is taken for left behind; a
#: copy that starts binds its socket a moment before it listens.
STALE_AFTER = 0.2
#: Copies that are followed at once; an update makes two or three.
MAX_COPIES = 32


class Peers:
    """`alive` are the copies that run now; `departures` counts those that have gone,
    or taken all their sockets away to go, since this one began."""

    def __init__(self, directory: Path, prefix: str, own: str, tasks: asyncio.TaskGroup) -> None:
        self._directory = directory
        self._prefix = prefix
        self._own = own
        self._tasks = tasks
        self._present: Mapping[str, Sequence[str]] = {}  # the sockets of each copy
        self._followed: set[str] = set()
        self.alive: set[str] = set()
        self.departures: Watchable[int] = Watchable(0)

    def see(self, sockets: Collection[str]) -> None:
        """Call with the directory's sockets whenever they change."""
        present: dict[str, list[str]] = {}
        for name in sorted(sockets):
            if name.startswith(self._prefix) and (instance := instance_of(name)) != self._own:
                present.setdefault(instance, []).append(name)
        leaving = (self._present.keys() - present.keys()) & self.alive
        self._present = present
        # Each costs a connection, and anybody who may write here can make names like ours.
        for instance in sorted(present.keys() - self._followed)[: MAX_COPIES - len(self._followed)]:
            self._followed.add(instance)
            self._tasks.create_task(self._follow(instance))
        if leaving:
            self.departures.set(self.departures.value + len(leaving))

    async def _follow(self, instance: str) -> None:
        try:
            line = await self._connect(instance, STALE_AFTER)
            if line is None:
                return
            log.info("another-instance", extra={"copy": instance})
            self.alive.add(instance)
            while line is not None:  # it may have dropped just the socket of this line
                await line.lost.wait()
                line = await self._connect(instance)
            self.alive.discard(instance)
            log.info("another-instance-ended", extra={"copy": instance})
            if instance in self._present:  # else its departure has been counted
                self.departures.set(self.departures.value + 1)
        finally:
            self._followed.discard(instance)

    async def _connect(self, instance: str, timeouts: float = 0.0) -> _Line | None:
        """None when nobody listens at any of its sockets, which are removed then; with
        `patience`, if that is still so after as many seconds."""
        loop = asyncio.get_running_loop()
        while True:
            refused = []
            for name in self._present.get(instance, ()):
                try:
                    _, line = await loop.create_unix_connection(_Line, str(self._directory / name))
                except ConnectionRefusedError:
                    refused.append(name)
                except OSError:
                    pass  # it went while we looked
                else:
                    return line
            if not refused:
                return None
            if not timeouts:
                break
            await asyncio.sleep(timeouts)
            timeouts = 0.0
        for name in refused:
            with suppress(OSError):
                (self._directory / name).unlink()
            log.info("stale-socket-removed", extra={"socket": name})
        return None
