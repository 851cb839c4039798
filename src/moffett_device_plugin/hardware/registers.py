"""The few registers that change without an event, read as cheaply as can be.

The files stay open between looks: one system call for each then, in place of three.
On sysfs a file of a device that left fails to read, which is a change like any other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..runtime.resource_exhausted import is_resource_exhausted
from . import Look

#: Beyond this many functions files are opened for each look: descriptors are few.
MAX_FUNCTIONS = 64
#: Vendor and device, no more: the kernel reads each register from the hardware, and some
#: chips lock up when registers are read that they do not have.
CONFIG_BYTES = 4
#: The kernel's own bookkeeping, a page at most: no read of these touches the hardware.
_KEPT = ("aer_dev_fatal", "power_state", "power/runtime_status")
_PAGE = 4096
#: In place of a descriptor.
_ABSENT, _NOT_OPENED = -1, -2


class Registers(NamedTuple):
    """What one function's registers say; None for what could not be, or was not, read.

    `asleep`: the function is powered down, and a read of its configuration space would
    wake it, or its port."""

    config: bytes | None = None
    aer_fatal: bytes | None = None
    asleep: bool = False


class RegisterReader:
    """Reads the registers of the functions last given to `aim`, by their directories."""

    def __init__(self) -> None:
        self._folders: list[tuple[str, str]] = []
        self._open: dict[str, tuple[int, ...]] = {}

    def aim(self, folders: Sequence[str]) -> None:
        """Reads these functions from now on; the last part of each is its bus ID."""
        self.close()
        self._folders = [(folder.rpartition("/")[2], folder) for folder in folders]

    def read(self, look: Look) -> Mapping[str, Registers]:
        """What the files say now. Of those that `look` skips, `config` is left alone."""
        seen: dict[str, Registers] = {}
        skipped, opened = look.skip, self._open
        for bus_id, folder in self._folders:
            look.begin(bus_id)
            if (files := opened.get(bus_id)) is not None:
                seen[bus_id] = _registers(files, skip=bus_id in skipped)
            else:
                seen[bus_id] = self._read_new(bus_id, folder, look)
        look.begin(None)
        return seen

    def _read_new(self, bus_id: str, folder: str, look: Look) -> Registers:
        skip = bus_id in look.skip
        files = _opened(folder, skip=skip)
        keep = False
        try:
            registers = _registers(files, skip=skip)
            look.begin(bus_id)  # not abandoned: no other look has opened them meanwhile
            keep = self._may_keep(files)
        finally:
            if not keep:
                _close(files)
        if keep:
            self._open[bus_id] = files
        return registers

    def _may_keep(self, files: tuple[int, ...]) -> bool:
        # What failed for want of descriptors can be opened when there are some again.
        return len(self._folders) <= MAX_FUNCTIONS and _NOT_OPENED not in files

    def close(self) -> None:
        for files in self._open.values():
            _close(files)
        self._open = {}

    def __del__(self) -> None:
        # Descriptors are numbers: nobody else closes them when the last user has gone.
        self.close()


def _registers(files: tuple[int, ...], *, skip: bool) -> Registers:
    config, fatal, power, runtime = files
    asleep = _reads(power, b"D3cold") or _reads(runtime, b"suspended")
    if skip or asleep:
        return Registers(None, _read(fatal, _PAGE), asleep)
    return Registers(_read(config, CONFIG_BYTES), _read(fatal, _PAGE))


def _reads(fd: int, word: bytes) -> bool:
    return fd >= 0 and (_read(fd, _PAGE) or b"").startswith(word)


def _close(files: tuple[int, ...]) -> None:
    for fd in files:
        if fd >= 0:
            os.close(fd)


def _opened(folder: str, *, skip: bool) -> tuple[int, ...]:
    return (
        _NOT_OPENED if skip else _open_file(f"{folder}/config"),
        *(_open_file(f"{folder}/{name}") for name in _KEPT),
    )


def _open_file(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _NOT_OPENED if is_resource_exhausted(error) else _ABSENT


def _read(fd: int, size: int) -> bytes | None:
    if fd < 0:
        return None
    try:
        return os.pread(fd, size, 0)
    except OSError:
        return None
