"""What our sockets in the kubelet's directory are called."""

from __future__ import annotations

import os
from binascii import crc32
from pathlib import Path

from ..runtime.errors import ConfigurationError

#: What the kernel allows for a socket's path, less its closing NUL.
MAX_PATH = 107
_INSTANCE_BYTES = 3  # hashlib and secrets would bring OpenSSL's 3.5 MiB along
_NUMBERS = 1000  # of one instance's sockets, of which it has four at most


def socket_prefix(resource: str) -> str:
    """What the names of this resource's sockets begin with. Short: the whole path
    has to fit in 107 bytes."""
    return f"spu-{crc32(resource.encode()) & 0xFFFF:04x}-"


def new_instance(resource: str) -> str:
    """A name that no other instance of the plugin has: so an old one that ends,
    and unlinks its sockets, never takes a new one's with them."""
    return f"{socket_prefix(resource)}{os.urandom(_INSTANCE_BYTES).hex()}"


def socket_name(instance: str, number: int = 0) -> str:
    """An instance's sockets in the order in which it makes them; the first is number 0."""
    return f"{instance}.{number % _NUMBERS}.sock" if number else f"{instance}.sock"


def instance_of(socket: str) -> str:
    """Which instance a socket belongs to, by its name."""
    return socket.partition(".")[0]


def new_socket_name(resource: str) -> str:
    """The first socket of a new instance."""
    return socket_name(new_instance(resource))


def check_length(directory: Path, key: str = "--kubelet-dir") -> None:
    """Raises ConfigurationError when a socket in this directory has too long a path."""
    longest = directory / socket_name(new_instance("x"), _NUMBERS - 1)
    if len(bytes(longest)) > MAX_PATH:
        most = MAX_PATH - len(longest.name) - 1
        raise ConfigurationError(
            key, str(directory), f"a socket's path has a limit: use one of up to {most} bytes"
        )
