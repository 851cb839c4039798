"""A kubelet that runs beside the tests, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .package import FakeKubelet, Pod, api

RESOURCE = "moffett.ai/spu"
#: No step of a test takes that long under emulation unless something is broken.
LIMIT_SECONDS = 60.0

T = TypeVar("T")


class Kubelet:
    """The project's fake kubelet, for tests that are no coroutines."""

    def __init__(self, fake: FakeKubelet, loop: asyncio.AbstractEventLoop) -> None:
        self._fake = fake
        self._loop = loop

    def _call(self, coroutine: Coroutine[Any, Any, T], seconds: float = LIMIT_SECONDS) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def health(self) -> dict[str, bool]:
        """Return whether each device that was listed is healthy, by its id."""

        async def read() -> dict[str, bool]:
            devices = self._fake.devices(RESOURCE)
            return {name: device.health == api.HEALTHY for name, device in devices.items()}

        return self._call(read())

    def healthy(self) -> set[str]:
        """Return the ids of the healthy devices."""
        return {name for name, healthy in self.health().items() if healthy}

    def lists(self) -> int:
        """Return how many device lists came so far."""

        async def read() -> int:
            return self._fake.lists.value

        return self._call(read())

    def wait_for(
        self,
        what: str,
        condition: Callable[[dict[str, bool]], bool],
        seconds: float = LIMIT_SECONDS,
    ) -> None:
        """Return when the devices' health, by id, is as it should be; AssertionError if it
        is not in time."""

        async def wait() -> None:
            version = self._fake.changed.version
            while not condition(
                {
                    name: device.health == api.HEALTHY
                    for name, device in self._fake.devices(RESOURCE).items()
                }
            ):
                _, version = await self._fake.changed.after(version)

        async def bounded() -> bool:
            try:
                async with asyncio.timeout(seconds):
                    await wait()
            except TimeoutError:
                return False
            return True

        if not self._call(bounded(), seconds + LIMIT_SECONDS):
            raise AssertionError(f"not within {seconds:g} s: {what}; listed: {self.health()}")

    def wait_for_count(self, count: int, seconds: float = LIMIT_SECONDS) -> None:
        """Return when exactly so many devices are healthy."""
        self.wait_for(f"{count} healthy devices", lambda all_: sum(all_.values()) == count, seconds)

    def wait_for_device(
        self, device: str, *, healthy: bool, seconds: float = LIMIT_SECONDS
    ) -> None:
        """Return when this device is listed as healthy, or is not."""
        self.wait_for(
            f"{device} {'healthy' if healthy else 'not healthy'}",
            lambda all_: all_.get(device, False) is healthy,
            seconds,
        )

    def admit(self, name: str, count: int) -> Pod:
        """Start a pod with so many devices; raises AdmissionError."""
        return self._call(self._fake.admit(name, RESOURCE, count))

    def delete(self, name: str) -> None:
        """End a pod."""

        async def delete() -> None:
            self._fake.delete(name)

        self._call(delete())


@contextmanager
def running_kubelet(directory: Path) -> Iterator[Kubelet]:
    """A kubelet that owns this directory, until the block ends."""
    ready = threading.Event()
    made: list[tuple[Kubelet, asyncio.Event]] = []

    async def live() -> None:
        async with asyncio.TaskGroup() as tasks:
            fake = FakeKubelet(directory, tasks)
            await fake.start()
            end = asyncio.Event()
            made.append((Kubelet(fake, asyncio.get_running_loop()), end))
            ready.set()
            await end.wait()
            fake.kill()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    ready.wait()
    kubelet, end = made[0]
    try:
        yield kubelet
    finally:
        kubelet._loop.call_soon_threadsafe(end.set)
        thread.join()
