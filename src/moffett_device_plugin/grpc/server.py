"""A gRPC server on a unix socket: unary and server-streaming methods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from . import messages
from .connection import Connection, DataReceived, Event, Headers, HeadersReceived, StreamReset
from .messages import Code, StatusError

log = logging.getLogger(__name__)

#: Unread bytes of a stream above which nothing more is sent until the client has read.
HIGH_WATER = 64 * 1024
#: Maximum connections. A plugin has one kubelet and few other clients.
MAX_CONNECTIONS = 256
#: Seconds for running calls to end when the connection is being drained.
DRAIN = 5.0


@dataclass(frozen=True, slots=True)
class Unary:
    """A method from request bytes to response bytes, sync or async."""

    answer: Callable[[bytes], bytes | Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, slots=True)
class Streaming:
    """A method from request bytes to a stream of responses, until the client cancels."""

    answer: Callable[[bytes], AsyncIterator[bytes]]


Method = Unary | Streaming


@dataclass(slots=True)
class _Call:
    method: Method
    path: str
    buffer: bytearray = field(default_factory=bytearray)
    task: asyncio.Task[None] | None = None


class Server:
    """Serves calls on the connections created by `protocol`.

    `tasks` owns the tasks of async and streaming methods. Any `:authority` is accepted:
    kubelets before 1.26 send the path of the socket, which strict servers reject, and
    on a unix socket it has no meaning.
    """

    def __init__(self, methods: Mapping[str, Method], tasks: asyncio.TaskGroup) -> None:
        self._methods = methods
        self._tasks = tasks
        self._connections: dict[_ServerProtocol, None] = {}  # oldest first
        self._ended = False

    def protocol(self) -> asyncio.Protocol:
        return _ServerProtocol(self._methods, self._tasks, self._connections, lambda: self._ended)

    def close(self) -> None:
        """Closes every connection with GOAWAY."""
        self._ended = True
        for connection in list(self._connections):
            connection.end()

    def drain(self) -> None:
        """Closes each connection when its running calls have ended, or after DRAIN seconds."""
        self._ended = True
        for connection in list(self._connections):
            connection.end_when_idle()


class _ServerProtocol(asyncio.Protocol):
    def __init__(
        self,
        methods: Mapping[str, Method],
        tasks: asyncio.TaskGroup,
        connections: dict[_ServerProtocol, None],
        ended: Callable[[], bool],
    ) -> None:
        self._methods = methods
        self._tasks = tasks
        self._siblings = connections
        self._server_ended = ended
        self._http = Connection(client=False)
        self._calls: dict[int, _Call] = {}
        self._transport: asyncio.Transport
        self._unread = False  # the write buffer is full
        self._drained = asyncio.Event()
        self._draining = False

    # -- asyncio.Protocol -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._siblings[self] = None
        if self._server_ended():
            # It was accepted just before the end, and would be open for ever.
            self._transport.abort()
            return
        self._write()
        if len(self._siblings) > MAX_CONNECTIONS:
            # One without a call, so that other clients cannot displace the kubelet.
            idle = next((old for old in self._siblings if not old._calls), self)
            del self._siblings[idle]
            idle._transport.abort()

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive(data):
            self._handle(event)
        self._write()
        self._drained.set()
        if self._http.closed:
            self._transport.close()

    def pause_writing(self) -> None:
        # Stop reading from a client that does not read: everything that is written is a
        # response, so this bounds the memory of each connection.
        self._unread = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._unread = False
        self._transport.resume_reading()
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._siblings.pop(self, None)
        for call in self._calls.values():
            if call.task is not None:
                call.task.cancel()
        self._calls.clear()

    def end(self) -> None:
        self._http.close()
        self._write()
        self._transport.close()

    def end_when_idle(self) -> None:
        self._draining = True
        if self._calls:
            asyncio.get_running_loop().call_later(DRAIN, self.end)
        self._write()

    # -- calls --------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, HeadersReceived):
            if event.stream_id not in self._calls and self._http.is_open(event.stream_id):
                self._begin(event.stream_id, event.headers)
            if event.ended:
                self._request_ended(event.stream_id)
        elif isinstance(event, DataReceived):
            call = self._calls.get(event.stream_id)
            if call is None:
                return
            call.buffer += event.data
            if len(call.buffer) > messages.MAX_REQUEST:
                text = f"the request exceeds {messages.MAX_REQUEST} bytes"
                self._finish(event.stream_id, Code.RESOURCE_EXHAUSTED, text)
            elif event.ended:
                self._request_ended(event.stream_id)
        elif isinstance(event, StreamReset):
            call = self._calls.pop(event.stream_id, None)
            if call is not None and call.task is not None:
                call.task.cancel()

    def _begin(self, stream_id: int, headers: Headers) -> None:
        fields = dict(headers)
        path = fields.get(b":path", b"").decode(errors="replace")
        method = self._methods.get(path)
        if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
            self._http.send_headers(stream_id, ((b":status", b"415"),), ended=True)
            self._http.refuse_rest(stream_id)
        elif fields.get(b":method") != b"POST":
            self._http.send_headers(stream_id, ((b":status", b"405"),), ended=True)
            self._http.refuse_rest(stream_id)
        elif method is None:
            self._finish(stream_id, Code.UNIMPLEMENTED, f"unknown method {path}")
        else:
            self._calls[stream_id] = _Call(method, path)

    def _request_ended(self, stream_id: int) -> None:
        call = self._calls.get(stream_id)
        if call is None or call.task is not None or not self._http.is_open(stream_id):
            return  # not a known call, already running, or reset meanwhile
        try:
            request = messages.take(call.buffer, messages.MAX_REQUEST)
            if request is None or call.buffer:
                raise StatusError(Code.INTERNAL, "the request is not exactly one message")
            if isinstance(call.method, Streaming):
                call.task = self._tasks.create_task(
                    self._stream(stream_id, call.method.answer(request))
                )
                return
            response = call.method.answer(request)
            if isinstance(response, bytes):
                self._respond(stream_id, response)
            else:
                call.task = self._tasks.create_task(self._await(stream_id, response))
                # Of a call that is cancelled before its task starts.
                call.task.add_done_callback(lambda _: response.close())
        except Exception as error:
            self._fail(stream_id, call.path, error)

    async def _await(self, stream_id: int, response: Coroutine[Any, Any, bytes]) -> None:
        path = self._calls[stream_id].path
        try:
            self._respond(stream_id, await response)
        except Exception as error:
            self._fail(stream_id, path, error)
        self._write()

    async def _stream(self, stream_id: int, responses: AsyncIterator[bytes]) -> None:
        path = self._calls[stream_id].path
        self._http.send_headers(stream_id, messages.RESPONSE_HEADERS)
        try:
            async for response in responses:
                self._http.send_data(stream_id, messages.frame(response))
                self._write()
                while self._unread or self._http.unsent_bytes(stream_id) > HIGH_WATER:
                    self._drained.clear()
                    await self._drained.wait()
            self._http.send_headers(stream_id, messages.OK_TRAILERS, ended=True)
            self._calls.pop(stream_id, None)
        except Exception as error:
            self._fail(stream_id, path, error)
        self._write()

    def _respond(self, stream_id: int, response: bytes) -> None:
        self._http.send_headers(stream_id, messages.RESPONSE_HEADERS)
        self._http.send_data(stream_id, messages.frame(response))
        self._http.send_headers(stream_id, messages.OK_TRAILERS, ended=True)
        self._calls.pop(stream_id, None)

    def _fail(self, stream_id: int, path: str, error: Exception) -> None:
        if isinstance(error, StatusError):
            self._finish(stream_id, error.code, error.text)
        else:
            log.error("call-failed", extra={"method": path}, exc_info=error)
            self._finish(stream_id, Code.INTERNAL, f"{type(error).__name__}: {error}")

    def _finish(self, stream_id: int, code: Code, text: str) -> None:
        """Ends a call with trailers, after headers unless the stream has sent them."""
        call = self._calls.pop(stream_id, None)
        started = call is not None and isinstance(call.method, Streaming) and call.task is not None
        prefix = () if started else messages.RESPONSE_HEADERS
        self._http.send_headers(stream_id, prefix + messages.trailers(code, text), ended=True)
        self._http.refuse_rest(stream_id)

    def _write(self) -> None:
        data = self._http.output()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if self._draining and not self._calls and not self._http.closed:
            self.end()
