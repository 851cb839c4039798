"""The sockets at which one copy of the plugin serves one resource.

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


class PluginSocket:
    """One of them, and who listens to us through it. It is `used` once a kubelet has
    answered a registration that names it."""

    def __init__(self, path: Path, service: DevicePluginService, tasks: asyncio.TaskGroup) -> None:
        self.stream_count = StreamCount()
        self.used = False
        self._server = Server(service.methods(self.stream_count), tasks)
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
    """Those of one copy; `newest` is the one to register, or registered last.

    `lost` counts how often the kubelet stopped listening to what was the newest then.
    What it does with an older one tells nothing.
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
        self.newest = self._another()

    @property
    def lost(self) -> int:
        return self._lost_before + self.newest.stream_count.ended

    def renew(self) -> None:
        """Lets the newest be one that no kubelet has been told of."""
        if self.newest.used:
            self._lost_before = self.lost
            self._older.append(self.newest)
            self.newest = self._another()

    def tidy(self) -> None:
        """Drops older ones: those that nobody listens through, and all but the last.

        One is kept because a kubelet from 1.25 to 1.36 takes any connection's end for
        that of the newest, which costs a moment. More would be a leak, where another
        copy comes and goes all the time.
        """
        heard = [socket for socket in self._older if socket.stream_count.streams]
        keep = heard[-1:]
        for socket in self._older:
            if socket in keep:
                continue
            if socket in heard:
                socket.close()
            else:  # the kubelet may be in the middle of an Allocate that it began here
                socket.retire()
        self._older = keep

    def unlink(self) -> None:
        for socket in (*self._older, self.newest):
            socket.unlink()

    def close(self) -> None:
        for socket in (*self._older, self.newest):
            socket.close()

    def _another(self) -> PluginSocket:
        path = self._directory / socket_name(self.instance, self._made)
        self._made += 1
        return PluginSocket(path, self._service, self._tasks)
