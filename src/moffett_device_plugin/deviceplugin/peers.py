"""Other instances of this plugin on the node, seen by their sockets.

A kubelet sends a resource's calls to whoever registered last, and up to 1.36 takes the end
of that one, or of any, for the end of the resource. So every instance keeps a silent
connection to each other one: its end is the other's end, also by SIGKILL, and then the one
that stays registers again.
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


class _SilentConnection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


#: Seconds after which a socket that nobody listens on counts as left behind; an instance
#: that starts binds its socket a moment before it listens.
STALE_AFTER = 0.2
#: Instances that are followed at once; an update makes two or three.
MAX_INSTANCES = 32


class Peers:
    """`alive` are the instances that run now. `departures` counts those that have ended, or
    removed all their sockets to end, since this one began; it is set with every change."""

    def __init__(self, directory: Path, prefix: str, own: str, tasks: asyncio.TaskGroup) -> None:
        self._directory = directory
        self._prefix = prefix
        self._own = own
        self._tasks = tasks
        self._present: Mapping[str, Sequence[str]] = {}  # the sockets of each instance
        self._followed: set[str] = set()
        self.alive: set[str] = set()
        self.departures: Watchable[int] = Watchable(0)

    @property
    def leaving(self) -> set[str]:
        """Those that have no socket any more, and still run."""
        return self.alive - self._present.keys()

    @property
    def staying(self) -> set[str]:
        return self.alive & self._present.keys()

    def see(self, sockets: Collection[str]) -> None:
        """Call with the directory's sockets whenever they change."""
        present: dict[str, list[str]] = {}
        for name in sorted(sockets):
            if name.startswith(self._prefix) and (instance := instance_of(name)) != self._own:
                present.setdefault(instance, []).append(name)
        departed = (self._present.keys() - present.keys()) & self.alive
        self._present = present
        # Each costs a connection, and anybody who may write here can make names like ours.
        free = MAX_INSTANCES - len(self._followed)
        for instance in sorted(present.keys() - self._followed)[:free]:
            self._followed.add(instance)
            self._tasks.create_task(self._follow(instance))
        if departed:
            self.departures.set(self.departures.value + len(departed))

    async def _follow(self, instance: str) -> None:
        connection = None
        try:
            connection = await self._connect(instance, STALE_AFTER)
            if connection is None:
                return
            log.info("another-instance", extra={"instance": instance})
            self.alive.add(instance)
            self.departures.set(self.departures.value + (instance not in self._present))
            while connection is not None:  # it may have closed just the socket of this one
                await connection.lost.wait()
                connection = await self._connect(instance)
            self.alive.discard(instance)
            log.info("another-instance-ended", extra={"instance": instance})
            # One that removed its sockets first has been counted.
            self.departures.set(self.departures.value + (instance in self._present))
        finally:
            self._followed.discard(instance)
            if connection is not None:
                connection.transport.close()

    async def _connect(self, instance: str, retry: float = 0.0) -> _SilentConnection | None:
        """None when nobody listens at any of its sockets, which are removed then; with
        `retry`, if that is still so after as many seconds."""
        loop = asyncio.get_running_loop()
        while True:
            refused = []
            for name in self._present.get(instance, ()):
                path = str(self._directory / name)
                try:
                    _, connection = await loop.create_unix_connection(_SilentConnection, path)
                except ConnectionRefusedError:
                    refused.append(name)
                except OSError:
                    pass  # it was removed in the meantime
                else:
                    return connection
            if not refused:
                return None
            if not retry:
                break
            await asyncio.sleep(retry)
            retry = 0.0
        for name in refused:
            with suppress(OSError):
                (self._directory / name).unlink()
            log.info("stale-socket-removed", extra={"socket": name})
        return None
