"""Reads the hardware in a thread of its own, each look within a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
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
    """One look, for whoever awaits `result`."""

    def __init__(self, call: Callable[[Look], Any], look: Look) -> None:
        self.call = call
        self.look = look
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def end(self, outcome: Any, error: BaseException | None) -> None:
        if self.result.done():  # cancelled
            return
        if error is None:
            self.result.set_result(outcome)
        else:
            self.result.set_exception(error)


class _Poll:
    """The same look every `interval` seconds, until it returns something other than
    `expected`: `changed` is called then. The event loop is not woken before."""

    def __init__(
        self,
        call: Callable[[Look], object],
        skip: frozenset[str],
        expected: object,
        interval: float,
        changed: Callable[[], object],
    ) -> None:
        self.call = call
        self.look = Look(skip=skip)
        self.expected = expected
        self.interval = interval
        self.changed = changed


class _Worker:
    """One thread. `look`: what it is at, since `began`. `ended`: completes with it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.orders: SimpleQueue[_Job | _Poll | None] = SimpleQueue()
        self.look: Look | None = None
        self.began = 0.0
        usual = threading.stack_size(_STACK)
        try:
            threading.Thread(target=self._work, name="hardware-reader", daemon=True).start()
        finally:
            threading.stack_size(usual)

    def _work(self) -> None:
        poll: _Poll | None = None
        while True:
            try:
                order = self.orders.get(timeout=poll.interval if poll is not None else None)
            except Empty:
                if poll is not None and self._changed(poll):
                    self._tell(poll.changed)
                    poll = None
                continue
            if order is None:
                break
            if isinstance(order, _Poll):
                poll = order
            else:
                self._do(order)
        self._tell(self.ended.set_result, None)

    def _do(self, job: _Job) -> None:
        outcome: Any = None
        error: BaseException | None = None
        self.began, self.look = monotonic(), job.look
        try:
            outcome = job.call(job.look)
        except BaseException as caught:
            error = caught
        self.look = None
        self._tell(job.end, outcome, error)

    def _changed(self, poll: _Poll) -> bool:
        self.began, self.look = monotonic(), poll.look
        try:
            return bool(poll.call(poll.look) != poll.expected)
        except Exception:
            return True  # whoever looks next sees why
        finally:
            self.look = None

    def _tell(self, call: Callable[..., object], *values: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(call, *values)


class Reader:
    """One thread, one look after another. A thread that a look holds up is left to it,
    and another takes over: it ends when the kernel lets go, and never holds up the
    process's own end."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None

    async def read(self, call: Callable[[Look], T], look: Look, deadline: float) -> T:
        """What `call` returns or raises. Raises OverdueError after `deadline` seconds."""
        worker = self._started()
        job = _Job(call, look)
        worker.orders.put(job)
        try:
            await asyncio.wait((job.result,), timeout=deadline)
            if job.result.done():
                return cast(T, job.result.result())
        finally:
            job.result.cancel()
        look.abandoned = True  # it may be behind the one that stands
        raise self._give_up(worker)

    def poll(
        self,
        call: Callable[[Look], object],
        skip: frozenset[str],
        expected: object,
        interval: float,
        changed: Callable[[], object],
    ) -> None:
        """From now on, and in place of an earlier poll, reads every `interval` seconds.
        `changed` is called once, in the event loop, when the result is not `expected`."""
        self._started().orders.put(_Poll(call, skip, expected, interval, changed))

    def overdue(self, deadline: float) -> OverdueError | None:
        """Set when a look of the poll has taken longer than `deadline` seconds; the poll
        has ended then. For a look of `read` its caller sees to that."""
        worker = self._worker
        if worker is None or worker.look is None or monotonic() - worker.began < deadline:
            return None
        return self._give_up(worker)

    def close(self) -> None:
        """Ends the thread after the look that it is at."""
        if self._worker is not None:
            self._worker.orders.put(None)
            self._worker = None

    def _started(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker()
        return self._worker

    def _give_up(self, worker: _Worker) -> OverdueError:
        reading = None
        if (look := worker.look) is not None:
            look.abandoned = True
            reading = look.reading
        if worker is self._worker:
            self.close()
        return OverdueError(reading, worker.ended)
