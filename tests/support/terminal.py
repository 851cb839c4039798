"""Runs a command on a terminal of a given size."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CODE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True, slots=True)
class Session:
    """What was written to the terminal, in parts with the seconds since the start, and to
    standard error, which is none."""

    parts: tuple[tuple[float, bytes], ...]
    errors: bytes
    code: int

    @property
    def written(self) -> str:
        return b"".join(part for _, part in self.parts).decode()

    @property
    def lines(self) -> list[str]:
        """Without colours."""
        return _CODE.sub("", self.written).splitlines()


def on_a_terminal(
    command: Sequence[str],
    width: int,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Session:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    inherited = dict(os.environ if env is None else env)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        inherited.pop(name, None)
    parts: list[tuple[float, bytes]] = []
    started = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE,
        env={**inherited, "TERM": "xterm"}, cwd=directory,
    ) as process:  # fmt: skip
        os.close(slave)
        with suppress(OSError):  # EIO: its end is closed
            while part := os.read(master, 65536):
                parts.append((time.monotonic() - started, part))
        os.close(master)
        _, errors = process.communicate(timeout=60)
    return Session(tuple(parts), errors, process.returncode)
