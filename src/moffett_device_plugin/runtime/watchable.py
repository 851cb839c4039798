"""A value that changes, and those who wait for its next change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Watchable(Generic[T]):
    """Holds the newest value only: a slow reader misses what was replaced in the meantime.

    `version` grows by one with each `set`.
    """

    def __init__(self, value: T) -> None:
        self.value = value
        self.version = 0
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], object]] = []

    def set(self, value: T) -> None:
        self.value = value
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], object]) -> None:
        """Calls it after each `set`, at once; it must not wait, fail or do any work: what
        there is to do belongs to a task that it wakes."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[], object]) -> None:
        self._listeners.remove(listener)

    async def after(self, version: int) -> tuple[T, int]:
        """The newest value once it is newer than `version`, and its own version."""
        while self.version <= version:
            await self._changed.wait()
        return self.value, self.version


@contextmanager
def waking(event: asyncio.Event, *watched: Watchable[Any]) -> Iterator[None]:
    """Sets `event` whenever one of `watched` changes, for as long as the block runs."""
    for watchable in watched:
        watchable.listen(event.set)
    try:
        yield
    finally:
        for watchable in watched:
            watchable.forget(event.set)


async def set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Returns when `event` is set, or after so many seconds; None: however long it takes."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
