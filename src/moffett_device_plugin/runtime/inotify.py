"""inotify through the C library: three calls and one struct.

The standard library has no inotify, and packages for it cost 1.1 to 2.2 MiB on every
node and a child process at start (docs/decisions/0002-dependencies.md).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path


class Mask(IntFlag):
    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x0100_0000


#: Changes of the entries of a directory, and its own removal.
ENTRIES = (
    Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF
)
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Event:
    watch: int
    mask: Mask
    name: str  # of the entry; empty for the directory itself


class Inotify:
    """One non-blocking inotify descriptor. Raises OSError when the limit is reached."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        return self.fd

    def watch(self, path: Path, mask: Mask) -> int:
        """Watches `path`; raises OSError (ENOENT, ENOSPC...)."""
        return _checked(_libc.inotify_add_watch(self.fd, os.fsencode(path), int(mask)), path)

    def read(self) -> Iterator[Event]:
        """The pending events; may be none."""
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            yield Event(watch, Mask(mask), name)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _checked(result: int, path: Path | None = None) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), None if path is None else str(path))
    return result
