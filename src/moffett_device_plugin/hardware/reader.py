"""Reads the hardware in a thread of its own, each look within a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from . import Look

T = TypeVar("T")
_Job = tuple[Callable[[Look], Any], Look, "asyncio.Future[Any]"]
#: Bytes. A look needs a few frames of Python and one small buffer.
_STACK = 512 * 1024


class OverdueError(Exception):
    """A look did not end in time. `reading` is the function at which it stands; `ended`
    completes when the kernel has let go of it."""

    def __init__(self, reading: str | None, ended: asyncio.Future[Any]) -> None:
        super().__init__(reading)
        self.reading = reading
        self.ended = ended


class Reader:
    """One thread, one look after another. A thread that a look holds up is left to it,
    and another takes over: it ends when the kernel lets go, and never holds up the
    process's own end."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] | None = None

    async def read(self, call: Callable[[Look], T], look: Look, deadline: float) -> T:
        """What `call` returns or raises. Raises OverdueError after `deadline` seconds."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        result.add_done_callback(_retrieve)
        if self._jobs is None:
            self._jobs = _start_thread()
        self._jobs.put((call, look, result))
        done, _ = await asyncio.wait([result], timeout=deadline)
        if done:
            return result.result()
        look.abandoned = True
        self.close()
        raise OverdueError(look.reading, result)

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
        call, look, result = job
        outcome: Any = None
        error: BaseException | None = None
        try:
            outcome = call(look)
        except BaseException as caught:
            error = caught
        with suppress(RuntimeError):  # the loop has ended
            result.get_loop().call_soon_threadsafe(_resolve, result, outcome, error)
        del job, call, result, outcome, error


def _resolve(result: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if result.done():  # cancelled
        return
    if error is None:
        result.set_result(outcome)
    else:
        result.set_exception(error)


def _retrieve(result: asyncio.Future[Any]) -> None:
    """The outcome of an abandoned look is nobody's to handle."""
    if not result.cancelled():
        result.exception()
