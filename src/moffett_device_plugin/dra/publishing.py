"""Keeps the API server's slices of this node equal to the node's state.

What there should be is computed anew at every change, and compared with what a watch says
there is: a write that failed is tried again for ever, and what a kubelet deletes when it
starts, or somebody edits, is back at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..devices.state import NodeState
from ..kubernetes.dra import DraClient
from ..kubernetes.errors import ApiError, Backoff
from ..kubernetes.rate_limiter import TokenBucket
from ..kubernetes.responses import Object
from ..runtime.watchable import Watchable, set_within, waking
from .names import DRIVER
from .pool import Node, Offer, Slice, build_slices, slice_name
from .stored import changes, devices_of, keeps_taints, name_of, tainted

log = logging.getLogger(__name__)

#: Seconds that changes which come together are waited for.
COALESCE = 0.1
#: About how many seconds one watch lasts.
WATCH = 600
#: Changes of a slice at once, and seconds for each one after that: each makes the scheduler
#: look at all pods that wait. A slice that is missing is written at once.
BURST, PERIOD = 10, 20.0
#: A watch that ends within so many seconds is not started again at once.
SHORT = 1.0
#: Seconds until a server that does not have the API is asked again.
UNAVAILABLE = 300.0


@dataclass(slots=True)
class PublisherStats:
    """Since the driver started."""

    writes: int = 0
    failures: int = 0
    deletions: int = 0
    last_success: float | None = None  # seconds of the loop's clock


@dataclass(frozen=True, slots=True)
class PublisherContext:
    """What the slices are made from, and when. `registered` is 0 until a kubelet has the
    driver; `on`: whether there are to be slices at all."""

    node: str
    state: Watchable[NodeState]
    registered: Watchable[int]
    held: Watchable[Mapping[str, str]]
    on: Watchable[bool]
    evict: frozenset[str] = frozenset()
    chips: Callable[[NodeState], frozenset[str]] | None = None


class Publisher:
    """`published` is whether the server has what it should, as far as is known."""

    def __init__(
        self, client: DraClient, context: PublisherContext, bucket: TokenBucket | None = None
    ) -> None:
        self.stats = PublisherStats()
        self.published: Watchable[bool] = Watchable(False)
        self._client = client
        self._context = context
        self._stored: dict[str, Object] = {}  # by name, as the server has them
        self._listed = False
        self._owner: Node | None = None
        self._taints = True
        self._dropped = False  # is in the log
        self._unavailable = False
        self._wake = asyncio.Event()
        self._reached = asyncio.Event()  # a write has shown that the server is there again
        self._backoff = Backoff(first=0.5, most=30.0)
        self._bucket = bucket or TokenBucket(BURST, PERIOD)
        self._pause: float | None = None  # seconds until a change may be written

    async def run(self) -> None:
        """Until it is cancelled. The slices stay: another instance may have them."""
        context = self._context
        watched = (context.state, context.registered, context.held, context.on)
        async with asyncio.TaskGroup() as tasks:
            with waking(self._wake, *watched):
                tasks.create_task(self._watch())
                while True:
                    await set_within(self._wake, self._pause)
                    await asyncio.sleep(COALESCE)
                    self._wake.clear()
                    await self._publish()

    async def _publish(self) -> None:
        try:
            await self._make_equal()
        except ApiError as error:
            self.stats.failures += 1
            self._show(published=False)
            await set_within(self._wake, self._backoff.failed(error))
            self._wake.set()
        else:
            self._backoff.succeeded()

    async def _make_equal(self) -> None:
        self._pause = None
        if not self._listed:
            return  # the watch wakes this as soon as it is known what there is
        if not self._context.on.value:
            await self._delete(tuple(self._stored))
            self._show(published=False)
            return
        if not self._context.registered.value or not self._context.state.value.settled:
            return
        if slice_name(self._context.node) not in self._stored:
            self._owner = None  # the Node may be another one, and only its own slices stay
        todo = changes(await self._wanted(), self._stored)
        await self._delete(todo.obsolete)
        if todo.writes:
            now = asyncio.get_running_loop().time()
            if not todo.missing and not self._bucket.take(now):
                self._pause = self._bucket.wait(now)
                return
            await self._write(todo.writes)
        self._show(published=True)

    async def _wanted(self) -> tuple[Slice, ...]:
        if self._owner is None:
            node = await self._client.get_node()
            self._owner = Node(self._context.node, str((node.get("metadata") or {}).get("uid")))
        context, state = self._context, self._context.state.value
        chips = None if context.chips is None else context.chips(state)
        offer = Offer(state, context.held.value, chips, context.evict, self._taints)
        return build_slices(offer, self._owner)

    async def _write(self, slices: tuple[Slice, ...]) -> None:
        kept, unhealthy = True, []
        for one in slices:
            answer = await self._client.apply_slice(one)
            self._reached.set()
            self.stats.writes += 1
            self.stats.last_success = asyncio.get_running_loop().time()
            self._stored[name_of(one)] = answer
            unhealthy += tainted(one)
            kept = kept and keeps_taints(one, answer)
        devices = sum(len(devices_of(one)) for one in slices)
        extra = {"slices": len(slices), "devices": devices, "tainted": unhealthy}
        log.info("dra-published", extra=extra)
        if not kept:
            self._taints = False
            if not self._dropped:
                self._dropped = True
                effect = "unhealthy devices are left out of the slice instead; no pod is evicted"
                log.warning("dra-field-dropped", extra={"field": "taints", "effect": effect})
            self._wake.set()
        elif unhealthy and self._dropped:
            self._dropped = False
            log.info("dra-field-kept", extra={"field": "taints"})

    async def _delete(self, names: tuple[str, ...]) -> None:
        for name in names:
            stored = self._stored[name]
            uid = str((stored.get("metadata") or {}).get("uid"))
            try:
                await self._client.delete_slice(name, uid)
            except ApiError as error:
                if error.status not in (404, 409):  # it is gone, or another one is there
                    raise
            self._stored.pop(name, None)
            self.stats.deletions += 1
            log.info("dra-withdrawn", extra={"slice": name})

    # -- what the server has ---------------------------------------------------------------

    async def _watch(self) -> None:
        backoff = Backoff(first=0.5, most=30.0)
        clock = asyncio.get_running_loop().time
        while True:
            began, seconds = clock(), int(WATCH * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                slices, version = await self._client.list_slices(DRIVER)
                self._unavailable = False
                self._stored = {name_of(one): one for one in slices}
                self._listed = True
                self._wake.set()
                async for kind, found in self._client.watch_slices(DRIVER, version, seconds):
                    backoff.succeeded()
                    self._take(kind, found)
            except ApiError as error:
                if error.status != 410:  # else it was too old: list again
                    self._note_unavailable(error)
                    self._taints = True  # one that was started anew may keep them
                    pause = UNAVAILABLE if self._unavailable else backoff.failed(error)
                    self._reached.clear()
                    await set_within(self._reached, pause)
                    continue
            if clock() - began < SHORT:
                await asyncio.sleep(backoff.failed())
            else:
                backoff.succeeded()

    def _take(self, kind: str, found: Object) -> None:
        name = name_of(found)
        if kind == "DELETED":
            self._stored.pop(name, None)
        elif kind in ("ADDED", "MODIFIED"):
            self._stored[name] = found
        else:
            return
        self._wake.set()

    def _note_unavailable(self, error: ApiError) -> None:
        missing = error.status == 404
        if missing and not self._unavailable:
            remedy = "DRA needs Kubernetes 1.34 or later; set deviceApi to device-plugin"
            why = "the API server does not have resource.k8s.io/v1"
            log.error("dra-unavailable", extra={"why": why, "remedy": remedy})
        self._unavailable = missing

    def _show(self, *, published: bool) -> None:
        if published != self.published.value:
            self.published.set(published)
