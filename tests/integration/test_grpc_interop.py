"""Our server, called by the reference implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from moffett_device_plugin.grpc.connection import MAX_STREAMS
from moffett_device_plugin.grpc.messages import MAX_REQUEST, MAX_TEXT, Code, StatusError
from moffett_device_plugin.grpc.server import Server, Streaming, Unary
from tests.support.running import within

TEXT = "芯片 0000:3b:00.0 is 100 % “gone”\n\tü"
SIZES = [0, 1, 16_379, 65_531, 1_000_000]


class Service:
    """What our server offers here. `ended` is set when a call that waits is given up."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def later(self, request: bytes) -> bytes:
        await asyncio.sleep(0)
        return request

    async def never(self, request: bytes) -> bytes:
        return b"".join([message async for message in self.watch(request)])

    def refuse(self, request: bytes) -> bytes:
        raise StatusError(Code.NOT_FOUND, request.decode())

    def break_(self, request: bytes) -> bytes:
        raise KeyError("inside")

    async def count(self, request: bytes) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number * 3_000

    async def fail(self, request: bytes) -> AsyncIterator[bytes]:
        yield b"one"
        raise StatusError(Code.UNAVAILABLE, TEXT)

    async def watch(self, request: bytes) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            self.started.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    def methods(self) -> dict[str, Unary | Streaming]:
        return {
            "/t.T/Echo": Unary(lambda request: request),
            "/t.T/Later": Unary(self.later),
            "/t.T/Never": Unary(self.never),
            "/t.T/Refuse": Unary(self.refuse),
            "/t.T/Break": Unary(self.break_),
            "/t.T/Count": Streaming(self.count),
            "/t.T/Fail": Streaming(self.fail),
            "/t.T/Watch": Streaming(self.watch),
        }


@asynccontextmanager
async def our_server(path: Path) -> AsyncIterator[tuple[Service, Server]]:
    service = Service()
    async with asyncio.TaskGroup() as tasks:
        server = Server(service.methods(), tasks)
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(server.protocol, str(path))
        try:
            yield service, server
        finally:
            listener.close()
            server.close()


@contextmanager
def their_client(path: Path, *options: tuple[str, Any]) -> Iterator[grpc.Channel]:
    alone = ("grpc.use_local_subchannel_pool", 1)
    with grpc.insecure_channel(f"unix:{path}", options=[alone, *options]) as channel:
        yield channel


async def ask(channel: grpc.Channel, method: str, request: bytes, **how: Any) -> bytes:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/t.T/{method}")
    return await within(asyncio.to_thread(call, request, timeout=how.pop("timeout", 10), **how))


def listen(channel: grpc.Channel, method: str, request: bytes = b"") -> Any:
    call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/t.T/{method}")
    return call(request, timeout=10)


async def refusal(answer: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        await answer
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details()


def with_our_server(
    test: Callable[[grpc.Channel, Service, Server], Awaitable[None]],
    directory: Path,
    *options: tuple[str, Any],
) -> None:
    async def run() -> None:
        path = directory / "p.sock"
        async with our_server(path) as (service, server):
            with their_client(path, *options) as channel:
                await test(channel, service, server)

    asyncio.run(run())


@pytest.mark.parametrize("method", ["Echo", "Later"])
def test_requests_and_responses_of_any_size_pass(short_dir: Path, method: str) -> None:
    async def test(channel: grpc.Channel, *_: object) -> None:
        for size in SIZES:
            assert await ask(channel, method, b"x" * size) == b"x" * size

    with_our_server(test, short_dir)


@pytest.mark.parametrize(
    "authority",
    ["localhost", "/var/lib/kubelet/device-plugins/spu.sock", "%2Fvar%2Fspu.sock", "a b@c:x", "芯"],
)
def test_any_authority_is_served(short_dir: Path, authority: str) -> None:
    async def test(channel: grpc.Channel, *_: object) -> None:
        assert await ask(channel, "Echo", b"hello") == b"hello"

    with_our_server(test, short_dir, ("grpc.default_authority", authority))


@pytest.mark.parametrize(
    ("method", "request_", "code", "text"),
    [
        ("Refuse", TEXT.encode(), grpc.StatusCode.NOT_FOUND, TEXT),
        ("Refuse", b"", grpc.StatusCode.NOT_FOUND, ""),
        ("Refuse", "芯".encode() * 5000, grpc.StatusCode.NOT_FOUND, "芯" * (MAX_TEXT // 3)),
        ("Break", b"", grpc.StatusCode.INTERNAL, "KeyError: 'inside'"),
        ("Nope", b"", grpc.StatusCode.UNIMPLEMENTED, "unknown method /t.T/Nope"),
        (
            "Echo",
            b"x" * MAX_REQUEST,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the request exceeds {MAX_REQUEST} bytes",
        ),
    ],
)
def test_the_caller_is_told_what_is_wrong_and_may_go_on(
    short_dir: Path, method: str, request_: bytes, code: grpc.StatusCode, text: str
) -> None:
    async def test(channel: grpc.Channel, *_: object) -> None:
        assert await refusal(ask(channel, method, request_)) == (code, text)
        assert await ask(channel, "Echo", b"next") == b"next"

    with_our_server(test, short_dir)


def test_a_compressed_request_is_refused_as_unimplemented(short_dir: Path) -> None:
    async def test(channel: grpc.Channel, *_: object) -> None:
        call = ask(channel, "Echo", b"x" * 1000, compression=grpc.Compression.Gzip)
        code, text = await refusal(call)
        assert (code, "compressed" in text) == (grpc.StatusCode.UNIMPLEMENTED, True)

    with_our_server(test, short_dir)


def test_more_calls_at_once_than_streams_are_all_answered(short_dir: Path) -> None:
    async def test(channel: grpc.Channel, *_: object) -> None:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/t.T/Later")
        futures = [call.future(b"%d" % number, timeout=10) for number in range(4 * MAX_STREAMS)]
        answers = [await asyncio.to_thread(future.result) for future in futures]
        assert answers == [b"%d" % number for number in range(4 * MAX_STREAMS)]

    with_our_server(test, short_dir)


def test_a_stream_arrives_whole_and_ends_with_its_status(short_dir: Path) -> None:
    async def test(channel: grpc.Channel, *_: object) -> None:
        count = listen(channel, "Count", b"100")
        messages = await asyncio.to_thread(list, count)
        assert messages == [b"%d" % number * 3_000 for number in range(100)]
        assert count.code() is grpc.StatusCode.OK
        fail = listen(channel, "Fail")
        assert await asyncio.to_thread(next, fail) == b"one"
        assert await refusal(asyncio.to_thread(next, fail)) == (grpc.StatusCode.UNAVAILABLE, TEXT)

    with_our_server(test, short_dir)


@pytest.mark.parametrize("how", ["cancel", "close the channel"])
def test_a_listener_that_leaves_is_noticed(short_dir: Path, how: str) -> None:
    async def test(channel: grpc.Channel, service: Service, _: object) -> None:
        call = listen(channel, "Watch")
        assert await asyncio.to_thread(next, call) == b"first"
        await within(service.started.wait())
        if how == "cancel":
            call.cancel()
        else:
            channel.close()
        await within(service.ended.wait())

    with_our_server(test, short_dir)


def test_a_deadline_ends_the_call_on_both_sides(short_dir: Path) -> None:
    async def test(channel: grpc.Channel, service: Service, _: object) -> None:
        assert await ask(channel, "Echo", b"connected") == b"connected"
        code, _ = await refusal(ask(channel, "Never", b"", timeout=0.05))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await within(service.ended.wait())

    with_our_server(test, short_dir)


def test_a_server_that_closes_ends_its_streams(short_dir: Path) -> None:
    async def test(channel: grpc.Channel, service: Service, server: Server) -> None:
        call = listen(channel, "Watch")
        assert await asyncio.to_thread(next, call) == b"first"
        server.close()
        code, _ = await refusal(asyncio.to_thread(next, call))
        assert code is grpc.StatusCode.UNAVAILABLE
        await within(service.ended.wait())

    with_our_server(test, short_dir)
