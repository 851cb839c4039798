"""Our server and our client with a peer that speaks HTTP/2 as it pleases, or not at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.connection import MAX_STREAMS
from moffett_device_plugin.grpc.messages import frame as message
from moffett_device_plugin.grpc.server import Server, Streaming, Unary
from tests.support import http2
from tests.support.http2 import END_STREAM, HELLO, call, frame, headers
from tests.support.running import on_a_loop, within

GREETING = http2.PREFACE + http2.settings()


class Peer:
    """The far end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, path: Path) -> Peer:
        peer = cls(*await asyncio.open_unix_connection(path))
        peer.writer.write(GREETING)
        return peer

    async def frames(self, last: int, stream_id: int) -> list[http2.Seen]:
        """The stream's frames up to the first of kind `last` that ends it."""
        found = []
        while True:
            start = await within(self.reader.readexactly(9))
            rest = await within(self.reader.readexactly(int.from_bytes(start[:3], "big")))
            (seen,) = http2.sent(start + rest)
            if seen.stream_id == stream_id:
                found.append(seen)
                if seen.kind == last and (last != http2.HEADERS or seen.flags & END_STREAM):
                    return found

    async def answer(self, stream_id: int) -> bytes:
        """All of what a call is answered, up to its trailers."""
        seen = await self.frames(http2.HEADERS, stream_id)
        return b"".join(one.payload for one in seen)


class Service:
    """`asked`: requests that reached a method. `alive`: streams that are served."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.alive = 0
        self.produced = 0
        self.changed = asyncio.Event()

    def echo(self, request: bytes) -> bytes:
        self.asked.append(request)
        return request

    async def pour(self, request: bytes) -> AsyncGenerator[bytes, None]:
        self.alive += 1
        try:
            while True:
                self.produced += 1
                self.changed.set()
                yield b"x" * 10_000
                await asyncio.sleep(0)
        finally:
            self.alive -= 1
            self.changed.set()

    async def watch(self, request: bytes) -> AsyncIterator[bytes]:
        async with aclosing(self.pour(request)) as poured:
            yield (await anext(poured))[:10]
            await asyncio.Event().wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await within(self.changed.wait())


def with_server(test: Callable[[Peer, Service, Path], Awaitable[None]], directory: Path) -> None:
    async def run() -> None:
        service, path = Service(), directory / "p.sock"
        async with asyncio.TaskGroup() as tasks:
            server = Server(
                {
                    "/t.T/Echo": Unary(service.echo),
                    "/t.T/Pour": Streaming(service.pour),
                    "/t.T/Watch": Streaming(service.watch),
                },
                tasks,
            )
            loop = asyncio.get_running_loop()
            listener = await loop.create_unix_server(server.protocol, path)
            peer = await Peer.connect(path)
            try:
                await test(peer, service, path)
            finally:
                peer.writer.transport.abort()
                listener.close()
                server.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "changed",
    [
        {":authority": None},
        {":authority": ""},
        {":authority": "/var/lib/kubelet/device-plugins/spu.sock"},
        {"grpc-timeout": "1n"},
        {"grpc-timeout": "forever"},
        {"grpc-timeout": ""},
        {"te": None},
        {"content-type": "application/grpc+proto"},
    ],
)
def test_what_callers_differ_in_does_not_matter(
    short_dir: Path, changed: dict[str, str | None]
) -> None:
    async def test(peer: Peer, *_: object) -> None:
        peer.writer.write(call(1, "/t.T/Echo", changed=changed))
        assert HELLO in await peer.answer(1)

    with_server(test, short_dir)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (call(1, "/t.T/Echo", changed={"content-type": "text/html"}), b"415"),
        (call(1, "/t.T/Echo", changed={"content-type": None}), b"415"),
        (call(1, "/t.T/Echo", changed={":method": "GET"}), b"405"),
        (call(1, "/t.T/Nope"), b"unknown method /t.T/Nope"),
        (call(1, "/t.T/Echo", b""), b"not exactly one message"),
        (call(1, "/t.T/Echo", message(b"cut")[:-1]), b"not exactly one message"),
        (call(1, "/t.T/Echo", message(b"1") + message(b"2")), b"not exactly one message"),
        (call(1, "/t.T/Echo", b"\1" + message(b"zip")[1:]), b"compressed"),
        (call(1, "/t.T/Echo", b"\0\xff\xff\xff\xff"), b"4294967295 bytes"),
        (headers(1, dict(http2.REQUEST), ended=True), b"not exactly one message"),
    ],
    ids=range(10),
)
def test_what_is_no_call_is_refused_and_the_next_one_answered(
    short_dir: Path, request_: bytes, told: bytes
) -> None:
    async def test(peer: Peer, service: Service, _: object) -> None:
        peer.writer.write(request_ + call(3, "/t.T/Echo"))
        assert told in await peer.answer(1)
        assert HELLO in await peer.answer(3)
        assert service.asked == [b"hello"]

    with_server(test, short_dir)


def test_a_call_that_was_taken_back_in_the_same_breath_is_not_made(short_dir: Path) -> None:
    async def test(peer: Peer, service: Service, _: object) -> None:
        for stream_id in range(1, 1001, 2):
            path = "/t.T/Pour" if stream_id % 4 == 1 else "/t.T/Echo"
            peer.writer.write(call(stream_id, path) + http2.reset(stream_id))
        peer.writer.write(call(1001, "/t.T/Echo", message(b"kept")))
        assert message(b"kept") in await peer.answer(1001)
        assert len(service.asked) + service.produced < 100, "a few are cut between two reads"
        assert service.alive == 0

    with_server(test, short_dir)


def test_a_refused_call_does_not_come_back_by_its_trailers(short_dir: Path) -> None:
    async def test(peer: Peer, service: Service, _: object) -> None:
        opening = headers(1, dict(http2.REQUEST) | {":path": "/t.T/Nope"})
        peer.writer.write(opening + call(1, "/t.T/Pour"))
        peer.writer.write(call(3, "/t.T/Echo"))
        assert b"unknown method" in await peer.answer(1)
        await peer.answer(3)
        assert (service.produced, service.alive) == (0, 0)

    with_server(test, short_dir)


def test_refused_calls_that_never_end_take_no_places(short_dir: Path) -> None:
    async def test(peer: Peer, *_: object) -> None:
        unknown = dict(http2.REQUEST) | {":path": "/t.T/Nope"}
        for stream_id in range(1, 4 * MAX_STREAMS, 2):
            peer.writer.write(headers(stream_id, unknown))
            assert b"unknown method" in await peer.answer(stream_id)
        peer.writer.write(call(4 * MAX_STREAMS + 1, "/t.T/Echo"))
        assert HELLO in await peer.answer(4 * MAX_STREAMS + 1)

    with_server(test, short_dir)


@pytest.mark.parametrize("cut", [5, 9, 40, -1])
def test_a_connection_cut_within_a_frame_harms_no_other(short_dir: Path, cut: int) -> None:
    async def test(peer: Peer, service: Service, path: Path) -> None:
        other = await Peer.connect(path)
        other.writer.write(call(1, "/t.T/Pour"))
        await other.reader.readexactly(1000)
        other.writer.write(call(3, "/t.T/Echo")[:cut])
        await other.writer.drain()
        other.writer.close()
        await service.until(lambda: service.produced > 0 and service.alive == 0)
        peer.writer.write(call(1, "/t.T/Echo"))
        assert HELLO in await peer.answer(1)
        assert service.asked == [b"hello"]

    with_server(test, short_dir)


def test_a_reset_ends_a_stream_and_frees_its_place(short_dir: Path) -> None:
    async def test(peer: Peer, service: Service, _: object) -> None:
        for stream_id in range(1, 4 * MAX_STREAMS, 2):
            peer.writer.write(call(stream_id, "/t.T/Watch"))
            await service.until(lambda: service.alive == 1)
            peer.writer.write(http2.reset(stream_id))
            await service.until(lambda: service.alive == 0)
        peer.writer.write(call(4 * MAX_STREAMS + 1, "/t.T/Echo"))
        assert HELLO in await peer.answer(4 * MAX_STREAMS + 1)

    with_server(test, short_dir)


async def push(sock: socket.socket, data: bytes, limit: int) -> int:
    """Sends `data` again and again until nobody takes any more; returns how much went."""
    total, refused = 0, 0
    while refused < 100 and total < limit:
        try:
            total += sock.send(data[total % len(data) :])
            refused = 0
        except BlockingIOError:
            refused += 1
        except (BrokenPipeError, ConnectionResetError):
            break
        await asyncio.sleep(0)  # the other side's turn
    return total


@pytest.mark.parametrize(
    "flood",
    [frame(http2.PING, 0, 0, b"12345678") * 1000, frame(http2.SETTINGS) * 1000],
    ids=["ping", "settings"],
)
def test_who_does_not_read_answers_is_not_read_either(short_dir: Path, flood: bytes) -> None:
    async def test(peer: Peer, service: Service, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.setblocking(False)
            sock.send(GREETING)
            pushed = await push(sock, flood, 20_000_000)
            assert pushed < 4_000_000
            peer.writer.write(call(1, "/t.T/Echo"))
            assert HELLO in await peer.answer(1), "others are served meanwhile"
            loop, received = asyncio.get_running_loop(), 0
            while received < pushed - 20:  # once it reads, it is answered
                received += len(await within(loop.sock_recv(sock, 100_000)))

    with_server(test, short_dir)


@pytest.mark.parametrize("windows", ["small", "huge"])
def test_a_stream_is_not_produced_for_who_does_not_read_it(short_dir: Path, windows: str) -> None:
    async def test(_: object, service: Service, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.setblocking(False)
            huge = http2.settings((4, 2**31 - 1)) + http2.window(0, 2**31 - 1 - 65_535)
            sock.send(GREETING + (huge if windows == "huge" else b"") + call(1, "/t.T/Pour"))
            before = -1
            while before != service.produced:
                before = service.produced
                for _turn in range(100):
                    await asyncio.sleep(0)
            assert 1 < service.produced < 100
            assert service.alive == 1
        await service.until(lambda: service.alive == 0)

    with_server(test, short_dir)


@on_a_loop
async def test_a_server_that_is_not_needed_any_more_answers_what_it_was_asked(
    short_dir: Path,
) -> None:
    asked, permitted = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes) -> bytes:
        asked.set()
        await permitted.wait()
        return request.upper()

    path = short_dir / "p.sock"
    async with asyncio.TaskGroup() as tasks:
        server = Server({"/t/Slow": Unary(slow)}, tasks)
        listener = await asyncio.get_running_loop().create_unix_server(server.protocol, str(path))
        busy, idle = await Channel.connect(path), await Channel.connect(path)
        answer = asyncio.ensure_future(busy.unary("/t/Slow", b"ok", 5))
        await within(asked.wait())
        server.drain()
        await within(idle.lost.wait())
        permitted.set()
        assert await within(answer) == b"OK"
        await within(busy.lost.wait())
        listener.close()


@pytest.mark.parametrize("end", [Server.close, Server.drain])
@on_a_loop
async def test_a_connection_accepted_as_the_server_ends_does_not_stay_open(
    short_dir: Path, end: Callable[[Server], None]
) -> None:
    """Another instance would wait for ever for the end of this one."""
    async with asyncio.TaskGroup() as tasks:
        server = Server({}, tasks)
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            loop = asyncio.get_running_loop()
            accepted = server.protocol()
            end(server)
            await loop.connect_accepted_socket(lambda: accepted, ours)
            assert await within(loop.sock_recv(theirs, 1)) == b""
