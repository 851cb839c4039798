"""Reads the hardware in a thread of its own, each look within a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from . import Look

T = TypeVar("T")
#: Bytes. A look needs a few frames of Python and one small buffer.
_STACK = 256 * 1024


class OverdueError(Exception):
    """A look did not end in time. `reading` is the function at which it stands; `ended`
    completes when the kernel has let go of it."""

    def __init__(self, reading: str | None, ended: asyncio.Future[None]) -> None:
        super().__init__(reading)
        self.reading = reading
        self.ended = ended


class _Job:
    """One look: `result` is for whoever waits, until it is overdue."""

    def __init__(self, call: Callable[[Look], Any], look: Look) -> None:
        self.call = call
        self.look = look
        self.loop = asyncio.get_running_loop()
        self.result: asyncio.Future[Any] = self.loop.create_future()
        self.ended: asyncio.Future[None] | None = None

    def give_up(self) -> None:
        if not self.result.done():
            self.look.abandoned = True
            self.ended = self.loop.create_future()
            self.result.set_exception(OverdueError(self.look.reading, self.ended))

    def end(self, outcome: Any, error: BaseException | None) -> None:
        if self.ended is not None:
            self.ended.set_result(None)
        elif self.result.done():  # cancelled
            return
        elif error is None:
            self.result.set_result(outcome)
        else:
            self.result.set_exception(error)


class Reader:
    """One thread, one look after another. A thread that a look holds up is left to it,
    and another takes over: it ends when the kernel lets go, and never holds up the
    process's own end."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] | None = None

    async def read(self, call: Callable[[Look], T], look: Look, deadline: float) -> T:
        """What `call` returns or raises. Raises OverdueError after `deadline` seconds."""
        job = _Job(call, look)
        if self._jobs is None:
            self._jobs = _start_thread()
        self._jobs.put(job)
        timer = job.loop.call_later(deadline, job.give_up)
        try:
            return cast(T, await job.result)
        except OverdueError:
            self.close()
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """Ends the thread after the look that it is at."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _start_thread() -> SimpleQueue[_Job | None]:
    jobs: SimpleQueue[_Job | None] = SimpleQueue()
    usual = threading.stack_size(_STACK)
    try:
        threading.Thread(target=_work, args=(jobs,), name="hardware-reader", daemon=True).start()
    finally:
        threading.stack_size(usual)
    return jobs


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        outcome: Any = None
        error: BaseException | None = None
        try:
            outcome = job.call(job.look)
        except BaseException as caught:
            error = caught
        with suppress(RuntimeError):  # the loop has ended
            job.loop.call_soon_threadsafe(job.end, outcome, error)
        del job, outcome, error
