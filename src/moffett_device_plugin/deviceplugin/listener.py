"""A listening socket of our own in the kubelet's directory."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Listener:
    """Accepts connections at `path` for as long as it is `ensure`d."""

    def __init__(self, path: Path, protocol: Callable[[], asyncio.Protocol]) -> None:
        self.path = path
        self._protocol = protocol
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self.ever_listened = False

    def intact(self) -> bool:
        """Whether the path still leads to our own socket."""
        return self._identity is not None and self._identity == _identity(self.path)

    async def ensure(self) -> bool:
        """Listens (again), unless it does; True when it had to. Raises OSError."""
        if self.intact():
            return False
        self.close_server()
        server_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            _unlink_socket(self.path)
            # For the kubelet, which is root, and nobody else: the file gets the socket's mode,
            # and a link that took its place meanwhile would be changed by chmod.
            os.fchmod(server_socket.fileno(), 0o600)
            server_socket.bind(str(self.path))
            self._identity = _identity(self.path)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(self._protocol, sock=server_socket)
            self.ever_listened = True
        except BaseException:
            server_socket.close()
            self._identity = None
            raise
        return True

    def close_server(self) -> None:
        """Accepts no more; the connections that there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def unlink(self) -> None:
        """Removes the socket from the directory, if it is still ours."""
        if self.intact():
            with suppress(OSError):
                self.path.unlink()
        self._identity = None


def _identity(path: Path) -> tuple[int, int] | None:
    """Inode and device of what is at the path itself, not where a link leads."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_ino, status.st_dev) if stat.S_ISSOCK(status.st_mode) else None


def _unlink_socket(path: Path) -> None:
    if _identity(path) is not None:
        path.unlink(missing_ok=True)
