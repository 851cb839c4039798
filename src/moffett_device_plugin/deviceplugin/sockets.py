"""The sockets at which one instance of the plugin serves one resource.

Each registration has a socket of its own. A kubelet from 1.37 on knows a plugin's
connections by their sockets: it refuses a socket that it still counts as connected, and
from then on overlooks that connection's end.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..grpc.server import Server
from .listener import Listener
from .service import DevicePluginService, StreamCount
from .socket_names import new_instance, socket_name

#: What a kubelet writes into its log, as the reason of a failed registration.
CLEARS = (
    "this is no error: before an older connection of this resource ends, the plugin makes the"
    " kubelet forget its client, and then registers again"
)


class PluginSocket:
    """One of them, and the calls that come through it. It is `used` once a kubelet has
    answered a registration that names it. With `refuse` it is one to clear the kubelet's
    client with."""

    def __init__(
        self,
        path: Path,
        service: DevicePluginService,
        tasks: asyncio.TaskGroup,
        refuse: str = "",
    ) -> None:
        self.stream_count = StreamCount()
        self.used = False
        self._server = Server(service.methods(self.stream_count, refuse=refuse), tasks)
        self.listener = Listener(path, self._server.protocol)

    @property
    def name(self) -> str:
        return self.listener.path.name

    def unlink(self) -> None:
        """Nobody finds it any more; the connections that there are go on."""
        self.listener.unlink()
        self.listener.close_server()

    def retire(self) -> None:
        """Ends its connections, too, each once it has its answers."""
        self.unlink()
        self._server.drain()

    def close(self) -> None:
        """Ends its connections, too, whatever they wait for."""
        self.unlink()
        self._server.close()


class PluginSockets:
    """Those of one instance; `newest` is the one to register, or registered last.

    `lost` counts how often the kubelet stopped listening to what was the newest then.
    What it does with an older one has no meaning.
    """

    def __init__(
        self, directory: Path, resource: str, service: DevicePluginService, tasks: asyncio.TaskGroup
    ) -> None:
        self.instance = new_instance(resource)
        self._directory = directory
        self._service = service
        self._tasks = tasks
        self._made = 0
        self._lost_before = 0
        self._older: list[PluginSocket] = []
        self.newest = self.another()

    @property
    def lost(self) -> int:
        return self._lost_before + self.newest.stream_count.ended

    @property
    def older(self) -> int:
        """How many sockets before the newest a kubelet listens through."""
        return len(self._older)

    def renew(self, newest: PluginSocket | None = None) -> None:
        """Puts one that no kubelet knows in the newest's place, or `newest`."""
        if newest is not None or self.newest.used:
            self._lost_before = self.lost
            self._older.append(self.newest)
            self.newest = newest or self.another()

    def tidy(self) -> None:
        """Drops older ones that no kubelet listens through."""
        for socket in self._older:
            if not socket.stream_count.streams:
                # The kubelet may be in the middle of an Allocate that it began here.
                socket.retire()
        self._older = [socket for socket in self._older if socket.stream_count.streams]

    def close_older(self) -> None:
        for socket in self._older:
            socket.close()
        self._older = []

    def unlink(self) -> None:
        for socket in (*self._older, self.newest):
            socket.unlink()

    def close(self) -> None:
        for socket in (*self._older, self.newest):
            socket.close()

    def another(self, refuse: str = "") -> PluginSocket:
        path = self._directory / socket_name(self.instance, self._made)
        self._made += 1
        return PluginSocket(path, self._service, self._tasks, refuse)
