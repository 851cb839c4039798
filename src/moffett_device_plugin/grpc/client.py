"""A gRPC client on a unix socket: unary and server-streaming calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

from . import messages
from .connection import Connection, DataReceived, Event, GoneAway, HeadersReceived, StreamReset
from .messages import Code, StatusError

_WINDOW = messages.MAX_RESPONSE + 64
#: Maximum bytes that the server has not read; above it the connection is closed.
_MAX_UNREAD = 4 * 1024 * 1024


@dataclass(slots=True)
class _Call:
    """The unread data and the status of one call."""

    buffer: bytearray = field(default_factory=bytearray)
    status: tuple[Code, str] | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class Channel(asyncio.Protocol):
    """One connection to one server. Created by `connect`, ended by `close`."""

    def __init__(self, authority: str) -> None:
        self._http = Connection(client=True, window=_WINDOW)
        self._authority = authority
        self._calls: dict[int, _Call] = {}
        self._transport: asyncio.Transport
        self._going_away = False
        self.lost = asyncio.Event()

    @classmethod
    async def connect(cls, path: Path, authority: str = "localhost") -> Self:
        """Raises OSError when no server listens on `path`."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(authority), str(path))
        return channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        self._write()
        self._transport.close()

    async def unary(self, path: str, request: bytes, timeout: float) -> bytes:
        """One request, one response. Raises StatusError, also for a lost connection
        (UNAVAILABLE) and after `timeout` seconds (DEADLINE_EXCEEDED)."""
        responses = self.stream(path, request)
        try:
            async with asyncio.timeout(timeout):
                async for response in responses:
                    return response
        except TimeoutError:
            text = f"no response in {timeout:g} s"
            raise StatusError(Code.DEADLINE_EXCEEDED, text) from None
        finally:
            await responses.aclose()
        raise StatusError(Code.INTERNAL, "the call ended without a response")

    async def stream(self, path: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """Yields each response; ends when the server ends the call with OK."""
        if self.lost.is_set():
            raise StatusError(Code.UNAVAILABLE, "the connection is closed")
        if self._going_away:
            raise StatusError(Code.UNAVAILABLE, "the server is going away")
        stream_id = self._http.open_stream(messages.request_headers(path, self._authority))
        call = self._calls[stream_id] = _Call()
        self._http.send_data(stream_id, messages.frame(request), ended=True)
        self._write()
        try:
            while True:
                while (message := messages.take(call.buffer, messages.MAX_RESPONSE)) is not None:
                    self._http.consumed(stream_id)
                    self._write()
                    yield message
                if call.status is not None:
                    break
                call.arrived.clear()
                await call.arrived.wait()
            if call.status[0] is not Code.OK:
                raise StatusError(*call.status)
        finally:
            self._calls.pop(stream_id, None)
            self._http.reset(stream_id)
            self._write()

    # -- asyncio.Protocol -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write()

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive(data):
            self._handle(event)
        self._write()
        if self._http.closed:
            self._transport.close()
        elif self._transport.get_write_buffer_size() > _MAX_UNREAD:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        for call in self._calls.values():
            self._end(call, Code.UNAVAILABLE, "the connection was closed")

    def _handle(self, event: Event) -> None:
        if isinstance(event, GoneAway):
            self._going_away = True
            for stream_id, call in self._calls.items():
                if stream_id > event.last_stream_id:
                    self._end(call, Code.UNAVAILABLE, "the server is going away")
            return
        call_ = self._calls.get(event.stream_id)
        if call_ is None:
            return
        if isinstance(event, DataReceived):
            call_.buffer += event.data
            call_.arrived.set()
            if event.ended:
                self._end(call_, Code.INTERNAL, "the server ended the call without a status")
        elif isinstance(event, StreamReset):
            self._end(call_, Code.CANCELLED, f"the server reset the call (code {event.code})")
        elif isinstance(event, HeadersReceived):
            status = messages.status_of(event.headers)
            http = dict(event.headers).get(b":status", b"200")
            if status is not None:
                self._end(call_, *status)
            elif event.ended or http != b"200":
                self._end(call_, Code.UNKNOWN, f"HTTP status {http.decode(errors='replace')}")

    def _end(self, call: _Call, code: Code, text: str) -> None:
        if call.status is None:
            call.status = (code, text)
            call.arrived.set()

    def _write(self) -> None:
        data = self._http.output()
        if data and not self._transport.is_closing():
            self._transport.write(data)
