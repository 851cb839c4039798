"""Keys as they are pressed, and a terminal that is itself again afterwards."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

#: What terminals send for the keys that are no characters.
_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down",
    b"\x1b[5~": "page-up", b"\x1b[6~": "page-down",
    b"\x1b[H": "home", b"\x1b[F": "end", b"\x1bOH": "home", b"\x1bOF": "end",
    b"\x1b[1~": "home", b"\x1b[4~": "end",
}  # fmt: skip
_LONGEST = 16


@dataclass(slots=True)
class KeyReader:
    """Bytes to names of keys. A sequence may come in parts, so what could still become
    one is kept."""

    kept: bytes = b""

    def feed(self, data: bytes) -> list[str]:
        self.kept += data
        keys: list[str] = []
        while self.kept:
            length = _length(self.kept)
            if length is None:
                break
            part, self.kept = self.kept[:length], self.kept[length:]
            if part in _SEQUENCES:
                keys.append(_SEQUENCES[part])
            elif len(part) == 1 and part.isascii() and part.decode().isprintable():
                keys.append(part.decode())
        return keys


def _length(data: bytes) -> int | None:
    """Of the first key in it; None while it is not complete."""
    if data[0] != 0x1B:
        return 1
    if len(data) == 1:
        return None
    if data[1:2] == b"O":
        return 3 if len(data) >= 3 else None
    if data[1:2] != b"[":
        return 1
    for at, byte in enumerate(data[2:_LONGEST], 2):
        if 0x40 <= byte <= 0x7E:  # the last byte of a control sequence
            return at + 1
    return _LONGEST if len(data) >= _LONGEST else None


@contextmanager
def keys_from(fd: int, pressed: Callable[[str], None]) -> Iterator[None]:
    """Calls `pressed` for each key, without echo and without waiting for a line. What
    the terminal was set to before is restored, whatever ends the block."""
    before = termios.tcgetattr(fd)
    reader = KeyReader()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with suppress(OSError):
            data = os.read(fd, 1024)
            if data:
                for key in reader.feed(data):
                    pressed(key)
                return
        loop.remove_reader(fd)  # the terminal is gone
        pressed("q")

    tty.setcbreak(fd, termios.TCSANOW)
    loop.add_reader(fd, read)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        with suppress(termios.error):  # a terminal that is gone has nothing to restore
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
