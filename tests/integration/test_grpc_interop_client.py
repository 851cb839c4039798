"""Our client, answered by the reference implementation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest

from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import MAX_RESPONSE, Code, StatusError
from tests.support.running import LIMIT, within

TEXT = "芯片 0000:3b:00.0 is 100 % “gone”\n\tü"


class Theirs(grpc.GenericRpcHandler):
    """A service on the reference implementation. `ended`: the caller gave up."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def service(
        self, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        unary = {"Echo": self.echo, "Refuse": self.refuse, "Never": self.never}
        streaming = {"Count": self.count, "Watch": self.watch}
        name = details.method.removeprefix("/t.T/")
        if name in unary:
            return grpc.unary_unary_rpc_method_handler(unary[name])
        if name in streaming:
            return grpc.unary_stream_rpc_method_handler(streaming[name])
        return None

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())

    def never(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"".join(self.watch(request, context))

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number * 10_000

    def watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(self.ended.set)
        yield b"first"
        self.ended.wait(LIMIT)


def with_their_server(
    test: Callable[[Channel, Theirs, grpc.Server], Awaitable[None]],
    directory: Path,
    authority: str = "localhost",
) -> None:
    theirs = Theirs()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, handlers=[theirs])
        server.add_insecure_port(f"unix:{directory}/k.sock")
        server.start()

        async def run() -> None:
            async with await Channel.connect(directory / "k.sock", authority) as channel:
                await within(test(channel, theirs, server))

        try:
            asyncio.run(run())
        finally:
            server.stop(None).wait(LIMIT)


def test_requests_and_responses_of_any_size_pass(short_dir: Path) -> None:
    async def test(channel: Channel, *_: object) -> None:
        for size in (0, 1, 16_379, 65_531, 4_000_000):
            assert await channel.unary("/t.T/Echo", b"x" * size, LIMIT) == b"x" * size

    with_their_server(test, short_dir)


def test_calls_at_the_same_time_do_not_mix(short_dir: Path) -> None:
    async def test(channel: Channel, *_: object) -> None:
        sent = [b"%d" % number * 20_000 for number in range(30)]
        calls = [channel.unary("/t.T/Echo", request, LIMIT) for request in sent]
        assert await asyncio.gather(*calls) == sent

    with_their_server(test, short_dir)


def test_a_stream_arrives_whole_even_to_a_slow_reader(short_dir: Path) -> None:
    async def test(channel: Channel, *_: object) -> None:
        number = size = 0
        async for message in channel.stream("/t.T/Count", b"700"):
            assert message == b"%d" % number * 10_000
            number, size = number + 1, size + len(message)
            await asyncio.sleep(0)
        assert number == 700
        assert size > MAX_RESPONSE, "more than the window that the stream began with"

    with_their_server(test, short_dir)


@pytest.mark.parametrize(
    ("method", "request_", "code", "text"),
    [
        ("Refuse", TEXT.encode(), Code.FAILED_PRECONDITION, TEXT),
        ("Refuse", b"", Code.FAILED_PRECONDITION, ""),
        ("Nope", b"", Code.UNIMPLEMENTED, "Method not found!"),
    ],
)
def test_an_error_comes_with_its_text_and_the_channel_goes_on(
    short_dir: Path, method: str, request_: bytes, code: Code, text: str
) -> None:
    async def test(channel: Channel, *_: object) -> None:
        with pytest.raises(StatusError) as caught:
            await channel.unary(f"/t.T/{method}", request_, LIMIT)
        assert (caught.value.code, caught.value.text) == (code, text)
        assert await channel.unary("/t.T/Echo", b"next", LIMIT) == b"next"

    with_their_server(test, short_dir)


def test_a_call_that_takes_too_long_is_given_up_on_both_sides(short_dir: Path) -> None:
    async def test(channel: Channel, theirs: Theirs, _: object) -> None:
        assert await channel.unary("/t.T/Echo", b"connected", LIMIT) == b"connected"
        with pytest.raises(StatusError, match=r"no response in 0\.05 s") as caught:
            await channel.unary("/t.T/Never", b"", 0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert await asyncio.to_thread(theirs.ended.wait, LIMIT)

    with_their_server(test, short_dir)


def test_a_stream_that_is_left_is_ended_on_the_server_too(short_dir: Path) -> None:
    async def test(channel: Channel, theirs: Theirs, _: object) -> None:
        async with aclosing(channel.stream("/t.T/Watch", b"")) as watch:
            assert await anext(watch) == b"first"
            assert not theirs.ended.is_set()
        assert await asyncio.to_thread(theirs.ended.wait, LIMIT)

    with_their_server(test, short_dir)


def test_a_server_that_stops_ends_the_stream_and_the_channel(short_dir: Path) -> None:
    async def test(channel: Channel, _: object, server: grpc.Server) -> None:
        watch = channel.stream("/t.T/Watch", b"")
        assert await anext(watch) == b"first"
        server.stop(None)
        with pytest.raises(StatusError):
            await anext(watch)
        await channel.lost.wait()
        with pytest.raises(StatusError) as caught:
            await channel.unary("/t.T/Echo", b"", LIMIT)
        assert caught.value.code is Code.UNAVAILABLE

    with_their_server(test, short_dir)


def test_no_one_listening_is_an_os_error(short_dir: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(Channel.connect(short_dir / "nobody.sock"))
