"""One process of the daemon, its log and its use of memory and descriptors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]

PRELOAD = Path(__file__).parent / "preload"
ROOT = Path(__file__).resolve().parents[2]


class Plugin:
    """`moffett-device-plugin serve` with `arguments`. `on_line` gets every line of its log,
    decoded; a line that is not JSON is {"raw": text}."""

    def __init__(self, number: int, on_line: Callable[[Plugin, Line], None]) -> None:
        self.number = number
        self.lines: deque[Line] = deque(maxlen=4000)
        self.ending = False  # we have sent it a signal
        self.stopped = False  # by SIGSTOP
        self.began = time.monotonic()
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "moffett_device_plugin",
            "serve",
            *arguments,
            env={**os.environ, "PYTHONPATH": str(PRELOAD), **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=16 * 1024 * 1024,
            cwd="/",
        )
        self._reader = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.returncode

    async def end(self, number: signal.Signals, timeout: float = 10.0) -> None:
        """Sends the signal and waits for the end. Raises TimeoutError."""
        assert self._process is not None
        self.ending = True
        if self.status is None:
            self._process.send_signal(number)
        if self.stopped and number is not signal.SIGKILL:
            self.resume()
        async with asyncio.timeout(timeout):
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    def stop(self) -> None:
        self.stopped = True
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        self.stopped = False
        if self.status is None:
            os.kill(self.pid, signal.SIGCONT)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def logged(self, event: str, since: int = 0) -> list[Line]:
        return [line for line in list(self.lines)[since:] if line.get("event") == event]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while raw := await self._process.stderr.readline():
            text = raw.decode(errors="replace").rstrip("\n")
            try:
                line = json.loads(text)
            except ValueError:
                line = {"raw": text}
            self.lines.append(line)
            self._on_line(self, line)
