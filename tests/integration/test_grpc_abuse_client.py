"""Our client with a server that answers as it pleases, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from moffett_device_plugin.grpc import client
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import MAX_RESPONSE, Code, StatusError
from moffett_device_plugin.grpc.messages import frame as message
from tests.support import http2
from tests.support.http2 import END_HEADERS, END_STREAM, frame
from tests.support.running import LIMIT, within

OK = {":status": "200", "content-type": "application/grpc"}


def headers(fields: dict[str, str], *, ended: bool = False) -> bytes:
    return http2.headers(1, fields, ended=ended)


def data(payload: bytes, *, ended: bool = False) -> bytes:
    return frame(http2.DATA, END_STREAM if ended else 0, 1, payload)


def with_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    directory: Path,
    test: Callable[[Channel], Awaitable[None]],
) -> None:
    """The server reads no further than it is asked to: its buffer holds one byte."""

    async def run() -> None:
        path = directory / "k.sock"
        done = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(http2.settings())
            try:
                await serve(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.transport.abort()
                done.set()

        async with await asyncio.start_unix_server(handle, path, limit=1):
            async with await Channel.connect(path) as channel:
                await within(test(channel))
            await within(done.wait())
            await asyncio.sleep(0)  # for the transport that was aborted

    asyncio.run(run())


def with_answer(
    answer: bytes, directory: Path, test: Callable[[Channel], Awaitable[None]], *, cut: bool = False
) -> None:
    """A server that says `answer`, whatever the question, and then hangs up or stays."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = b""
        while b"question" not in asked:
            asked += await reader.read(1)
        writer.write(answer)
        while not cut and await reader.read(1000):
            pass

    with_server(serve, directory, test)


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (
            headers(OK | {"grpc-status": "5", "grpc-message": "no%20%E8%8A%AF"}, ended=True),
            5,
            "no 芯",
        ),
        (headers(OK | {"grpc-status": "0"}, ended=True), 13, "ended without a response"),
        (headers({":status": "503"}, ended=True), 2, "HTTP status 503"),
        (headers({":status": "404"}), 2, "HTTP status 404"),
        (headers(OK) + data(b"", ended=True), 13, "without a status"),
        (headers(OK) + data(message(b"cut")[:-1], ended=True), 13, "without a status"),
        (headers(OK) + data(b"\1\0\0\0\0"), 12, "compressed"),
        (headers(OK) + data(b"\0" + (MAX_RESPONSE + 1).to_bytes(4, "big")), 8, "16777153 bytes"),
        (headers(OK) + http2.reset(1, 2), 1, r"reset the call \(code 2\)"),
        (frame(http2.GOAWAY, 0, 0, b"\0" * 8), 14, "going away"),
        (frame(http2.HEADERS, END_HEADERS, 1, b"\x80"), 1, "code 9"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_answer_is_an_error_that_says_why(
    short_dir: Path, answer: bytes, code: int, text: str
) -> None:
    async def test(channel: Channel) -> None:
        with pytest.raises(StatusError, match=text) as caught:
            await channel.unary("/t.T/Echo", b"question", LIMIT)
        assert caught.value.code is Code(code)

    with_answer(answer, short_dir, test)


@pytest.mark.parametrize(
    "answer",
    [b"", headers(OK), headers(OK) + data(message(b"cut"))[:-2]],
    ids=["at once", "after headers", "within a frame"],
)
def test_a_connection_that_is_cut_makes_the_call_unavailable(
    short_dir: Path, answer: bytes
) -> None:
    async def test(channel: Channel) -> None:
        with pytest.raises(StatusError) as caught:
            await channel.unary("/t.T/Echo", b"question", LIMIT)
        assert caught.value.code is Code.UNAVAILABLE
        await channel.lost.wait()

    with_answer(answer, short_dir, test, cut=True)


def test_messages_before_an_error_are_delivered_before_it(short_dir: Path) -> None:
    status = headers({"grpc-status": "14", "grpc-message": "gone"}, ended=True)
    parts = message(b"one") + message(b"two") + message(b"three")
    answer = headers(OK) + data(parts[:12]) + data(parts[12:]) + status

    async def test(channel: Channel) -> None:
        received = []
        with pytest.raises(StatusError, match="gone"):
            async for each in channel.stream("/t.T/Watch", b"question"):
                received.append(each)
        assert received == [b"one", b"two", b"three"]

    with_answer(answer, short_dir, test)


def test_no_call_is_made_on_a_server_that_is_going_away(short_dir: Path) -> None:
    """It would never be answered: the calls it knows may end, and no others begin."""
    answer = frame(http2.GOAWAY, 0, 0, b"\0\0\0\1" + b"\0" * 4) + headers(OK)
    answer += data(message(b"answer")) + headers({"grpc-status": "0"}, ended=True)

    async def test(channel: Channel) -> None:
        assert await channel.unary("/t.T/Echo", b"question", LIMIT) == b"answer"
        with pytest.raises(StatusError, match="going away") as caught:
            await channel.unary("/t.T/Echo", b"question", LIMIT)
        assert caught.value.code is Code.UNAVAILABLE

    with_answer(answer, short_dir, test)


def test_a_server_that_asks_and_never_reads_is_cut_off(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_MAX_UNREAD", 300_000)

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(frame(http2.PING, 0, 0, b"12345678") * 1000)
            await writer.drain()

    async def test(channel: Channel) -> None:
        await channel.lost.wait()

    with_server(flood, short_dir, test)
