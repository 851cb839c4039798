"""Who is at the other end of a socket, and whether the directory it is in is safe."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path


class UntrustedError(Exception):
    """The directory or the peer is not one to believe; the text says why."""


def directory_owner(directory: Path) -> int:
    """The user whose directory it is. Raises UntrustedError where others than its owner
    may put something in it, and OSError where it is not there."""
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UntrustedError(f"{directory} is no directory")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedError(
            f"{directory} has mode {stat.S_IMODE(status.st_mode):04o}: others than its owner may"
            " write there; use mode 0755"
        )
    return status.st_uid


def peer_user(connection: socket.socket) -> int:
    """The effective user of the process at the other end, as the kernel says (for whoever
    listens: at the time of its `listen`)."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3I", credentials)[1])


def check_peer(connection: socket.socket, directory: Path) -> None:
    """Raises UntrustedError unless the other side is root, this process's own user, or the
    owner of the directory, who could replace the socket."""
    user = peer_user(connection)
    if user not in (0, os.geteuid(), directory_owner(directory)):
        raise UntrustedError(f"the process at the other end is of user {user}")
