"""Runs a command that may hang, flood its output, or leave children behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import SubprocessError

MAX_OUTPUT = 1024 * 1024
#: What the host's tools get of our environment: to be found, and to find their libraries.
_PASSED_ON = ("PATH", "HOME", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended: `status` is its exit code, negative for a signal."""

    status: int
    output: str


class CommandError(Exception):
    """It could not be run, did not end in time, or printed too much."""


class Runner:
    """Runs one command at a time, each within a deadline.

    A process that ignores SIGKILL (stuck in the driver, say) is left behind, but
    no other is started beside it until it is gone.
    """

    def __init__(self, *, reap: bool | None = None) -> None:
        """`reap`: whether processes that a command left behind become this process's
        children; None for whether it is the first of its PID namespace."""
        self._stuck: asyncio.Task[int] | None = None
        self._reap = os.getpid() == 1 if reap is None else reap

    async def run(
        self,
        argv: Sequence[str],
        deadline: float,
        env: dict[str, str] | None = None,
        before_exec: Callable[[], None] | None = None,
    ) -> Finished:
        """Standard output and error come together. Raises CommandError."""
        if self._stuck is not None:
            if not self._stuck.done():
                raise CommandError("the last run cannot be killed and still hangs")
            self._stuck = None
        self._reap_left_behind()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=env,
                start_new_session=True,  # so that its children die with it
                preexec_fn=before_exec,
                limit=MAX_OUTPUT,
            )
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot run {argv[0]}: {_cause(error)}") from error
        except SubprocessError as error:  # before_exec failed
            raise CommandError(f"cannot run {argv[0]}: {error}") from error
        try:
            async with asyncio.timeout(deadline):
                output = await self._output(process)
                status = await process.wait()
        except TimeoutError:
            raise CommandError(f"no end after {deadline:g} s; killed") from None
        finally:
            await self._end(process)
        return Finished(status, output.decode(errors="replace"))

    async def _output(self, process: asyncio.subprocess.Process) -> bytes:
        assert process.stdout is not None  # noqa: S101  (a pipe was asked for)
        parts: list[bytes] = []
        size = 0
        while part := await process.stdout.read(65_536):
            parts.append(part)
            size += len(part)
            if size > MAX_OUTPUT:
                raise CommandError(f"over {MAX_OUTPUT} bytes of output; killed")
        return b"".join(parts)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Kills the process group, whatever is left of it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        # A child that left the group may hold the pipe's other end for ever; nothing public
        # lets go of ours.
        process._transport.close()  # type: ignore[attr-defined]
        if process.returncode is not None:
            self._reap_left_behind()
            return
        waiting = asyncio.ensure_future(process.wait())
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        if not done:
            self._stuck = waiting

    def _reap_left_behind(self) -> None:
        """The first process of a container inherits what a command leaves behind. Such a
        child stays a zombie until somebody waits for it. No command runs at this time, so
        that nothing is taken from anybody else who waits."""
        if self._reap:
            with suppress(ChildProcessError):  # there is no child at all
                while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
                    pass


def tool_environment() -> dict[str, str]:
    """For a tool of the host's: in plain English, and without what is set for us alone."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, "LC_ALL": "C"}


def _cause(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
