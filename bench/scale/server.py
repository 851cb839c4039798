"""An API server as its clients see it: so many requests at once, so long for each, and a
refusal for what is too much. It keeps counts, and of objects the slices of DRA alone."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import ClassVar, Self

from moffett_device_plugin.kubernetes.http import NoResponseError, Response
from moffett_device_plugin.kubernetes.settings import ApiSettings

#: Who writes and who reads, by method; a watch is counted for itself.
WRITES = frozenset({"PATCH", "POST"})


@dataclass(slots=True)
class Server:
    """`at_once` requests are served at a time, each `service` seconds long; as many more
    as `queue` wait, and all others are answered 429, to come again after a second: what
    API Priority and Fairness does with one level of priority. The defaults are of a small
    control plane; kube-apiserver's own are 400 reads and 200 writes at once."""

    at_once: int = 200
    service: float = 0.01
    queue: int = 2000
    up: bool = True
    requests: Counter[str] = field(default_factory=Counter)  # by what was asked
    per_second: Counter[int] = field(default_factory=Counter)
    handshakes: Counter[int] = field(default_factory=Counter)  # by second
    refused: int = 0  # with 429
    first_write: dict[str, dict[str, float]] = field(default_factory=dict)  # what, by node
    failed: int = 0  # while it was down
    waiting: int = 0
    longest_queue: int = 0
    open_watches: int = 0
    slices: dict[str, object] = field(default_factory=dict)  # by node
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.at_once)

    async def connect(self) -> None:
        """TCP and TLS: two turns of 0.5 ms. Raises NoResponseError."""
        await asyncio.sleep(0.001)
        if not self.up:
            self.failed += 1
            raise NoResponseError("os-111", "Connection refused", nothing_received=True)
        self.handshakes[self._second()] += 1

    async def answer(self, method: str, target: str, node: str, body: bytes = b"") -> Response:
        """Raises NoResponseError."""
        if not self.up:
            self.failed += 1
            raise NoResponseError("closed", "the server closed the connection")
        what = _what(method, target)
        self.requests[what] += 1
        self.per_second[self._second()] += 1
        if self.waiting >= self.queue:
            self.refused += 1
            return Response(429, {"retry-after": "1"}, b"{}")
        self.waiting += 1
        self.longest_queue = max(self.longest_queue, self.waiting)
        try:
            async with self._slots:
                await asyncio.sleep(self.service)
        finally:
            self.waiting -= 1
        if method in WRITES:
            at = asyncio.get_running_loop().time()
            self.first_write.setdefault(what, {}).setdefault(node, at)
        if what == "patch slice":
            self.slices[node] = json.loads(body)
            return Response(200, {}, body)
        if what == "list slices":
            items = [self.slices[node]] if node in self.slices else []
            listed = {"metadata": {"resourceVersion": "1"}, "items": items}
            return Response(200, {}, json.dumps(listed).encode())
        return Response(200, {}, _body(what, node))

    def forget(self) -> None:
        """Counts from here on."""
        for counts in (self.requests, self.per_second, self.handshakes, self.first_write):
            counts.clear()
        self.refused = self.failed = self.longest_queue = 0

    def _second(self) -> int:
        return int(asyncio.get_running_loop().time())


def _what(method: str, target: str) -> str:
    path, _, query = target.partition("?")
    if "/resourceslices" in path:
        if method == "PATCH":
            return "patch slice"
        return "watch slices" if "watch=1" in query else "list slices"
    if "watch=1" in query:
        return "watch node"
    if path == "/api/v1/nodes":
        return "list node"
    if "/events" in path:
        return "create event" if method == "POST" else "patch event"
    if path.endswith("/status"):
        return "patch node status"
    return "get node" if method == "GET" else "patch node"


def _body(what: str, node: str) -> bytes:
    if what != "list node":
        return b"{}"
    metadata = {"name": node, "resourceVersion": "1", "labels": {}}
    items = [{"metadata": metadata}]
    return json.dumps({"metadata": {"resourceVersion": "1"}, "items": items}).encode()


class Connection:
    """In the place of `HttpConnection`: the same methods, and no network. `server` is the
    one that all of them lead to."""

    server: ClassVar[Server]

    def __init__(self, node: str) -> None:
        self.node = node
        self.reusable = True
        self._watch = 0.0
        self._body = b""

    @classmethod
    async def open(cls, settings: ApiSettings) -> Self:
        await cls.server.connect()
        return cls(settings.node)

    async def exchange(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        try:
            return await self.server.answer(method, target, self.node, body)
        except BaseException:
            self.close()
            raise

    async def begin(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        response = await self.exchange(method, target, headers, body)
        if "timeoutSeconds=" in target:
            self._watch = float(target.partition("timeoutSeconds=")[2].partition("&")[0])
        return response

    async def data(self) -> AsyncGenerator[bytes, None]:
        """A watch in which nothing comes, until its time is over or the server goes."""
        server, loop = self.server, asyncio.get_running_loop()
        server.open_watches += 1
        try:
            until = loop.time() + self._watch
            while (left := until - loop.time()) > 0 and server.up:
                await asyncio.sleep(min(left, 5.0))
        finally:
            server.open_watches -= 1
        if not server.up:
            raise NoResponseError("closed", "the server closed the connection")
        if self._body:
            yield self._body

    def close(self) -> None:
        self.reusable = False
