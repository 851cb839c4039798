"""Reports health changes of devices as Events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..devices.state import NodeState
from ..runtime.watchable import Watchable
from .client import ApiClient
from .errors import ApiError, Backoff
from .eventqueue import EventQueue
from .events import Holders, Occurrence, event_name, event_object, event_repeat, events_between
from .rate_limiter import TokenBucket

#: Burst of events, and seconds to one more. Waiting changes are merged into one event, so
#: none is lost; a fault that all nodes share must not overload the API server (docs/scale.md).
BURST, PERIOD = 25, 60.0
#: HTTP statuses that a retry cannot change: the event is logged and dropped.
_PERMANENT = frozenset({400, 413, 422})


class EventReporter:
    """Two tasks, so that a slow API server delays no change: one records changes with their
    time, the other writes them."""

    def __init__(
        self,
        client: ApiClient,
        state: Watchable[NodeState],
        holders: Callable[[], Holders],
        namespace: str = "default",
        backoff: Backoff | None = None,
        bucket: TokenBucket | None = None,
    ) -> None:
        self._client = client
        self._state = state
        self._holders = holders
        self._namespace = namespace
        self._backoff = backoff or Backoff()
        self._node = client.settings.node
        self._queue = EventQueue(bucket or TokenBucket(BURST, PERIOD), self._new_name)
        self._arrived = asyncio.Event()
        self._last_name = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._record())
            tasks.create_task(self._write())

    async def _record(self) -> None:
        before, version = NodeState(), -1
        while True:
            after, version = await self._state.after(version)
            if not after.settled:
                continue
            if after.health_statuses != before.health_statuses:
                for event in events_between(before, after, self._holders()):
                    self._queue.add(event, time.time())
                    self._arrived.set()
            before = after

    async def _write(self) -> None:
        while True:
            self._arrived.clear()
            occurrence = self._queue.take(time.monotonic())
            if occurrence is not None:
                await self._deliver(occurrence)
                continue
            try:
                async with asyncio.timeout(self._queue.wait(time.monotonic())):
                    await self._arrived.wait()
            except TimeoutError:
                pass

    async def _deliver(self, occurrence: Occurrence) -> None:
        while True:
            try:
                await self._put(occurrence)
            except ApiError as error:
                if error.status in _PERMANENT:
                    return
                await asyncio.sleep(self._backoff.failed(error))
            else:
                self._backoff.succeeded()
                return

    async def _put(self, occurrence: Occurrence) -> None:
        if occurrence.again:
            try:
                await self._client.patch_event(
                    self._namespace, occurrence.name, event_repeat(occurrence)
                )
            except ApiError as error:
                # Expired: by default the API server keeps events for an hour.
                if error.status != 404:
                    raise
            else:
                return
        try:
            await self._client.create_event(event_object(occurrence, self._node, self._namespace))
        except ApiError as error:
            # An earlier attempt succeeded, and only its response was lost.
            if error.status != 409:
                raise

    def _new_name(self) -> str:
        self._last_name = max(self._last_name + 1, time.time_ns())
        return event_name(self._node, self._last_name)
