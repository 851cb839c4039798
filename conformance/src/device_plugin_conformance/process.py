"""The plugin's process: started as its DaemonSet would, and always cleaned up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path


class PluginProcess:
    """A process group of its own. `ended` calls back when the first process is gone."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        tasks: asyncio.TaskGroup,
        ended: Callable[[], object],
    ) -> PluginProcess:
        """What it prints is appended to `log`. Raises OSError."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        it = cls(process)
        tasks.create_task(it._watch(ended))
        return it

    async def _watch(self, ended: Callable[[], object]) -> None:
        await self._process.wait()
        ended()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        """To the first process only, as a container runtime does."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """Ends the whole group at once, also what the first process left behind."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()

    def descriptors(self) -> int | None:
        """How many files it has open; None where /proc does not tell."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208  (only counted)
        except OSError:
            return None
