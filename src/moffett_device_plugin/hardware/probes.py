"""The few registers that change without an event, read as cheaply as can be.

The files stay open between looks: one system call for each then, in place of three.
On sysfs a file of a device that left fails to read, which is a change like any other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from ..runtime.resource_exhausted import is_resource_exhausted

#: Beyond this many functions files are opened for each look: descriptors are few.
MAX_FUNCTIONS = 128
#: Configuration space is read for its vendor and device only: the kernel reads each
#: register from the hardware. Counters are a page at most.
_FILES = (("config", 4), ("aer_dev_fatal", 4096))
#: In place of a descriptor.
_ABSENT, _EXHAUSTED = -1, -2


class Probes:
    """Reads `config` and `aer_dev_fatal` of the functions last given to `aim`."""

    def __init__(self) -> None:
        self._paths: list[tuple[str, int]] = []
        self._open: list[tuple[int, int]] | None = None

    def aim(self, folders: Sequence[str]) -> None:
        """Reads these functions' directories from now on."""
        self.close()
        self._paths = [(f"{folder}/{name}", size) for folder in folders for name, size in _FILES]

    def look(self) -> list[bytes | None]:
        """What the files say now; None for one that cannot be read."""
        if len(self._paths) > MAX_FUNCTIONS * len(_FILES):
            return [_read_once(path, size) for path, size in self._paths]
        if self._open is None:
            self._open = [(_opened(path), size) for path, size in self._paths]
        seen = [_read(fd, size) for fd, size in self._open]
        if any(fd == _EXHAUSTED for fd, _ in self._open):
            self.close()  # it can be opened when there are descriptors again
        return seen

    def close(self) -> None:
        for fd, _ in self._open or ():
            if fd >= 0:
                os.close(fd)
        self._open = None


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return _EXHAUSTED if is_resource_exhausted(error) else _ABSENT


def _read(fd: int, size: int) -> bytes | None:
    if fd >= 0:
        with suppress(OSError):
            return os.pread(fd, size, 0)
    return None


def _read_once(path: str, size: int) -> bytes | None:
    fd = _opened(path)
    try:
        return _read(fd, size)
    finally:
        if fd >= 0:
            os.close(fd)
