"""The kubelet's socket: created as a kubelet does, and left behind as by one that is killed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import api
from ..grpc.server import Server


class RegistrationServer:
    """Accepts connections at `path` for `server`, from `open` to `close`.

    asyncio's own server, when it is closed, leaves a connection open that it has just
    accepted, and the plugin would wait for a dead kubelet. From Python 3.13 on it also
    deletes its socket, which no killed process does.
    """

    def __init__(self, path: Path, tasks: asyncio.TaskGroup) -> None:
        self.path = path
        self._tasks = tasks
        self._listening: socket.socket | None = None
        self.server: Server | None = None

    def open(self, server: Server) -> None:
        """Raises OSError."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _not_preempted():
            listening.bind(str(self.path))
            listening.listen(100)
        listening.setblocking(False)
        self._listening, self.server = listening, server
        asyncio.get_running_loop().add_reader(listening, self._accept, listening, server)

    def close(self) -> None:
        """Accepts no more connections. Those that exist stay open, and the socket file stays."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
        self._listening = self.server = None

    def _accept(self, listening: socket.socket, server: Server) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:  # the peer closed it again
            return
        connection.setblocking(False)
        self._tasks.create_task(self._serve(connection, server))

    async def _serve(self, connection: socket.socket, server: Server) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(server.protocol, connection)
        except OSError:
            connection.close()
        else:
            if server is not self.server:
                transport.abort()


def clear_directory(directory: Path, *, others: bool = True) -> None:
    """Deletes all but the checkpoint; with `others` False only the kubelet's own socket.

    That is deleted last, so that the new one gets the same inode number on a file system
    that reuses numbers, as was observed at most restarts of real kubelets.
    """
    entries = sorted(directory.iterdir(), key=lambda entry: entry.name == api.KUBELET_SOCKET)
    for entry in entries:
        kept = entry.name == api.KUBELET_CHECKPOINT or entry.is_dir()
        if not kept and (others or entry.name == api.KUBELET_SOCKET):
            entry.unlink(missing_ok=True)


@contextmanager
def _not_preempted() -> Iterator[None]:
    """Keeps this thread on its processor, where the system permits it.

    A plugin that watches the directory wakes at `bind` and may run before `listen` is
    called: its first attempt would be refused. That can happen with a real kubelet too,
    but it is not what is measured or tested here.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
