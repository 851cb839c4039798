"""The metrics server over real sockets, asked by clients good and bad."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from moffett_device_plugin.metrics import server
from moffett_device_plugin.metrics.address import Address
from moffett_device_plugin.metrics.heartbeat import Heartbeats
from moffett_device_plugin.metrics.server import Limits, MetricsServer
from moffett_device_plugin.metrics.view import View
from moffett_device_plugin.resources.pools import build_pools
from moffett_device_plugin.runtime.counters import Counters
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.values import state_of

LOOPBACK = Address("127.0.0.1", 0)


def a_view() -> View:
    state = state_of("1xS4")
    pools, _ = build_pools(state)
    return View(state, Counters(), 0.0, 0.0, pools, (), {"moffett.ai/spu": True})


@dataclass
class Served:
    """A server under test. What it shows is `view`, its clock says `now`."""

    port: int = 0
    view: View = field(default_factory=a_view)
    now: float = 0.0
    failure: Exception | None = None

    def rescan(self) -> View:
        if self.failure is not None:
            raise self.failure
        return self.view

    async def raw(self, request: bytes) -> bytes:
        """Everything that is answered until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, str, bytes]:
        lines = (f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", "")
        answer = await self.raw("\r\n".join(lines).encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode().lower(), body


@asynccontextmanager
async def serving(limits: Limits = Limits(), address: Address = LOOPBACK) -> AsyncIterator[Served]:  # noqa: B008
    served = Served()
    registers = Heartbeats({"bus": 10.0}, clock=lambda: served.now)
    metrics = MetricsServer(address, served.rescan, registers, limits)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(metrics.run())
        served.port = await listening(metrics.port)
        yield served
        task.cancel()


async def listening(port: Watchable[int | None]) -> int:
    while port.value is None:
        await port.after(port.version)
    return port.value


def on_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    async def run() -> None:
        await test()

    def wrapped() -> None:
        asyncio.run(run())

    wrapped.__name__ = test.__name__
    return wrapped


@on_a_loop
async def test_a_scrape_in_either_format() -> None:
    async with serving() as it:
        status, head, body = await it.get("/metrics")
        assert status == 200
        assert "content-type: text/plain; version=0.0.4; charset=utf-8" in head
        assert "moffett_spu_healthy" in {family.name for family in read_text(body.decode())}
        _, head, body = await it.get("/metrics", "Accept: application/openmetrics-text")
        assert "content-type: application/openmetrics-text; version=1.0.0" in head
        assert list(read_openmetrics(body.decode()))  # type: ignore[no-untyped-call]


@on_a_loop
async def test_a_scrape_is_compressed_for_who_takes_it() -> None:
    async with serving() as it:
        _, head, body = await it.get("/metrics", "Accept-Encoding: gzip")
        assert "content-encoding: gzip" in head
        assert f"content-length: {len(body)}" in head
        assert b"moffett_spu_healthy" in gzip.decompress(body)


@on_a_loop
async def test_a_connection_serves_many_scrapes_of_what_is_then() -> None:
    async with serving() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        for allocations in range(3):
            it.view.counters.of("moffett.ai/spu").allocations = allocations
            writer.write(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split()[0])
            body = await reader.readexactly(length)
            assert b'allocations_total{resource="moffett.ai/spu"} %d.0\n' % allocations in body
        writer.close()


@on_a_loop
async def test_head_tells_the_length_and_sends_nothing() -> None:
    async with serving() as it:
        _, _, body = await it.get("/healthz")
        status, head, nothing = await it.get("/healthz", method="HEAD")
        assert (status, nothing) == (200, b"")
        assert f"content-length: {len(body)}" in head


@on_a_loop
async def test_health_follows_the_loops() -> None:
    async with serving() as it:
        assert (await it.get("/healthz"))[0] == 200
        it.now = 11.0
        status, _, body = await it.get("/healthz")
        assert (status, body) == (503, b"bus: last heartbeat 11 s ago, limit 10 s\n")


@on_a_loop
async def test_readiness_follows_the_registrations() -> None:
    async with serving() as it:
        assert (await it.get("/readyz"))[0] == 200
        it.view = replace(it.view, registered={})
        status, _, body = await it.get("/readyz")
        assert (status, body) == (503, b"not registered with the kubelet: moffett.ai/spu\n")
        assert (await it.get("/healthz"))[0] == 200, "alive, so it is not restarted"


@on_a_loop
async def test_what_is_not_there_and_what_is_not_allowed() -> None:
    async with serving() as it:
        assert (await it.get("/nothing"))[0] == 404
        status, _, body = await it.get("/")
        assert status == 200 and b"/metrics" in body
        status, head, _ = await it.get("/metrics", method="POST")
        assert status == 405 and "allow: get, head" in head
        status, _, _ = await it.get("/metrics", "Content-Length: 5", "", "12345")
        assert status == 413


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 20_000, b"431"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: no\r\n\r\n", b"400"),
    ],
)
def test_nonsense_is_answered_and_does_no_harm(request_: bytes, status: bytes) -> None:
    async def run() -> None:
        async with serving() as it:
            assert (await it.raw(request_)).startswith(b"HTTP/1.1 " + status)
            assert (await it.get("/healthz"))[0] == 200

    asyncio.run(run())


@on_a_loop
async def test_who_says_nothing_or_stops_halfway_is_hung_up_on() -> None:
    async with serving(Limits(timeout=0.2)) as it:
        assert await it.raw(b"") == b""
        assert await it.raw(b"GET /metr") == b""
        assert (await it.get("/healthz"))[0] == 200


@on_a_loop
async def test_who_is_idle_too_long_is_hung_up_on() -> None:
    async with serving(Limits(idle=0.05)) as it:
        answer = await it.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.endswith(b"ok\n")


@on_a_loop
async def test_who_does_not_read_is_hung_up_on() -> None:
    async with serving(Limits(timeout=0.3)) as it:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(peer, ("127.0.0.1", it.port))
        with pytest.raises((ConnectionError, TimeoutError)):
            while True:  # asks and asks, and never reads an answer
                await asyncio.wait_for(
                    loop.sock_sendall(peer, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 999), 5
                )
        peer.close()
        assert (await it.get("/healthz"))[0] == 200


def test_who_reads_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(address: Address) -> socket.socket:
        listening = socket.create_server((address.host, address.port))
        # Handed on to what it accepts: most of an answer has to wait in the server.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listening

    monkeypatch.setattr(server, "_bind", bind)

    async def run() -> None:
        async with serving() as it:
            state = state_of("4xS30")
            it.view = replace(it.view, state=state, pools=build_pools(state)[0])
            loop = asyncio.get_running_loop()
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", it.port))
            request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(peer, request)
            answer = bytearray()
            while data := await loop.sock_recv(peer, 1000):
                answer += data
            peer.close()
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        assert int(head.lower().split(b"content-length: ")[1].split()[0]) == len(body) > 30_000

    asyncio.run(run())


@on_a_loop
async def test_of_too_many_connections_the_longest_quiet_is_closed() -> None:
    async with serving(Limits(connections=2)) as it:
        ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        first, second = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(2)]
        for reader, writer in (first, second, first):
            writer.write(ask)
            await reader.readuntil(b"ok\n")
        assert (await it.get("/healthz"))[0] == 200  # a third is served
        assert await second[0].read() == b""
        first[1].write(ask)
        await first[0].readuntil(b"ok\n")
        for _, writer in (first, second):
            writer.close()


def test_a_fault_of_ours_is_an_answer_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async with serving() as it:
            it.failure = RuntimeError("no such thing")
            for _ in range(3):
                status, _, body = await it.get("/metrics")
                assert (status, body) == (500, b"RuntimeError: no such thing\n")
            it.failure = None
            assert (await it.get("/metrics"))[0] == 200

    asyncio.run(run())
    assert [record.message for record in caplog.records] == ["metrics-failed"]


def test_a_port_that_is_taken_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = Address("127.0.0.1", other.getsockname()[1])
            metrics = MetricsServer(address, a_view, Heartbeats({}), Limits(rebind=0.01))
            task = asyncio.ensure_future(metrics.run())
            while not caplog.records:
                await asyncio.sleep(0)
            other.close()
        async with asyncio.timeout(10):
            assert await listening(metrics.port) == address.port
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert [record.message for record in caplog.records] == [
        "metrics-unavailable",
        "metrics-served",
    ]


@on_a_loop
async def test_the_end_does_not_wait_for_clients() -> None:
    async with serving() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")  # and stays connected
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_all_addresses_are_those_of_both_families(host: str) -> None:
    async def run() -> None:
        async with serving(address=Address("", 0)) as it:
            try:
                _, writer = await asyncio.open_connection(host, it.port)
            except OSError:
                if host == "::1":
                    pytest.skip("no IPv6 here")
                raise
            writer.close()

    asyncio.run(run())
