"""An event loop whose time passes only while nothing is to be done: an hour of a fleet
takes as long as its work. No file or socket can be waited for in it."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

#: The wall clock at virtual second 0: a round number in 2027.
_EPOCH = 1_800_000_000.0


class _Selector(selectors.SelectSelector):
    """Never waits, but moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits, and there is no timer")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        # A timer that is due a moment later than the clock can tell apart is due.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual.now


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end in virtual time, in which `time.time` and `time.monotonic` are,
    too."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, _clocks(runner.get_loop()):
        return runner.run(work)


@contextmanager
def _clocks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    wall, monotonic, wall_ns = time.time, time.monotonic, time.time_ns
    time.time = lambda: _EPOCH + loop.time()
    time.time_ns = lambda: int((_EPOCH + loop.time()) * 1e9)
    time.monotonic = loop.time
    try:
        yield
    finally:
        time.time, time.monotonic, time.time_ns = wall, monotonic, wall_ns
