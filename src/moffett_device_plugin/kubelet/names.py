"""What our sockets in the kubelet's directory are called."""

from __future__ import annotations

import os
from binascii import crc32
from pathlib import Path

from ..errors import ConfigurationError

#: What the kernel allows for a socket's path, less its closing NUL.
MAX_PATH = 107
_SUFFIX_BYTES = 3  # hashlib and secrets would bring OpenSSL's 3.5 MiB along


def socket_prefix(resource: str) -> str:
    """What the names of this resource's sockets begin with. Short: the whole path
    has to fit in 107 bytes."""
    return f"spu-{crc32(resource.encode()) & 0xFFFF:04x}-"


def new_socket_name(resource: str) -> str:
    """A name that no other copy of the plugin has: so an old copy that ends, and
    unlinks its socket, never takes the new one's with it."""
    return f"{socket_prefix(resource)}{os.urandom(_SUFFIX_BYTES).hex()}.sock"


def check_length(directory: Path, key: str = "--kubelet-dir") -> None:
    """Raises ConfigurationError when a socket in this directory has too long a path."""
    longest = directory / new_socket_name("x")
    if len(bytes(longest)) > MAX_PATH:
        most = MAX_PATH - len(longest.name) - 1
        raise ConfigurationError(
            key, str(directory), f"a socket's path has a limit: use one of up to {most} bytes"
        )
