"""HTTP for /metrics, /healthz and /readyz: asyncio and h11."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import h11

from ..runtime.watchable import Watchable
from .address import Address
from .exposition import CONTENT_TYPES, negotiate, render
from .families import collect
from .heartbeat import Heartbeats
from .readiness import unready
from .view import View

log = logging.getLogger(__name__)

_PLAIN = "text/plain; charset=utf-8"
_INDEX = """Moffett SPU device plugin

/metrics   for Prometheus
/healthz   200 while the loops of the daemon run
/readyz    200 while every resource is registered with the kubelet
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for clients. `connections`: open at the same time; above it, the connection
    that has been idle for longest is closed. `head`: bytes of a request. `timeout`:
    seconds to receive a request and to send a response. `idle`: seconds between two
    requests. `rebind`: seconds between attempts to bind a port that is in use. `render_slice`:
    seconds of rendering before it yields to the event loop."""

    connections: int = 32
    head: int = 8192
    timeout: float = 10.0
    idle: float = 120.0
    rebind: float = 10.0
    render_slice: float = 0.001


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class MetricsServer:
    """Serves the result of `view` at the time of each request. `port` is the TCP port that
    it listens on, None before that."""

    def __init__(
        self,
        address: Address,
        view: Callable[[], View],
        heartbeats: Heartbeats,
        limits: Limits = Limits(),
    ) -> None:
        self._address = address
        self._view = view
        self._heartbeats = heartbeats
        self._limits = limits
        self._open: dict[asyncio.StreamWriter, None] = {}  # longest idle first
        self._reported = ""  # the last error in the log: each is logged once
        self.port: Watchable[int | None] = Watchable(None)

    async def run(self) -> None:
        """Until it is cancelled. A port that is in use is tried again every `rebind` seconds."""
        async with asyncio.TaskGroup() as tasks:

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                tasks.create_task(self._connection(reader, writer))

            listening = await self._bound()
            server = await asyncio.start_server(accept, sock=listening, limit=self._limits.head)
            self.port.set(listening.getsockname()[1])
            log.info("metrics-served", extra={"address": self._address})
            try:
                await asyncio.Future()
            finally:
                server.close()  # not waited for: idle clients would delay it

    async def _bound(self) -> socket.socket:
        while True:
            try:
                return _bind(self._address)
            except OSError as error:
                why = error.strerror or str(error)
                if why != self._reported:
                    self._reported = why
                    extra = {"address": self._address, "why": why}
                    log.error("metrics-unavailable", extra=extra)  # noqa: TRY400
            await asyncio.sleep(self._limits.rebind)

    # -- one connection -----------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > self._limits.connections:
            # Not the new one: a client that holds all the others would keep the kubelet's
            # probe out, and the kubelet would restart the container.
            idle = next(iter(self._open))
            del self._open[idle]
            idle.transport.abort()
        writer.transport.set_write_buffer_limits(high=0)  # drain() waits until everything is sent
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError):
            pass  # the client went away, or was too slow
        except Exception:  # no client may stop the daemon
            log.exception("metrics-client-failed")
        finally:
            self._open.pop(writer, None)
            # Data that the client did not read within the timeout is dropped.
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)
        wait = self._limits.timeout
        while True:
            method = b""
            try:
                request = await self._request(http, reader, wait)
                if request is None:
                    return
                method = request.method
                response = await self._respond(request)
            except h11.RemoteProtocolError as error:
                response = _text(error.error_status_hint, f"{error}\n")
            writer.write(_encode(http, method, response))
            async with asyncio.timeout(self._limits.timeout):
                await writer.drain()
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()
            wait = self._limits.idle
            if writer in self._open:  # the least idle now
                self._open[writer] = self._open.pop(writer)

    async def _request(
        self, http: h11.Connection, reader: asyncio.StreamReader, wait: float
    ) -> h11.Request | None:
        """The next complete request; None when the client closed the connection. Raises
        RemoteProtocolError, TimeoutError."""
        request: h11.Request | None = None
        limit = asyncio.timeout(wait)
        async with limit:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    data = await reader.read(self._limits.head)
                    http.receive_data(data)
                    if data and wait != self._limits.timeout:
                        wait = self._limits.timeout
                        limit.reschedule(asyncio.get_running_loop().time() + wait)
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    raise h11.RemoteProtocolError("a request with a body is not accepted", 413)
                elif isinstance(event, h11.EndOfMessage):
                    return request
                else:
                    return None  # the connection is closed

    # -- responses ----------------------------------------------------------------------

    async def _respond(self, request: h11.Request) -> _Response:
        if request.method not in (b"GET", b"HEAD"):
            return _Response(405, _PLAIN, b"use GET\n", (("Allow", "GET, HEAD"),))
        path = request.target.partition(b"?")[0]
        try:
            if path == b"/metrics":
                return await self._metrics(
                    _header(request, b"accept"), "gzip" in _header(request, b"accept-encoding")
                )
            if path == b"/healthz":
                return _status(self._heartbeats.stalled())
            if path == b"/readyz":
                return _status(unready(self._view()))
        except Exception as error:  # an error here must not stop the daemon
            why = f"{type(error).__name__}: {error}"
            if why != self._reported:
                self._reported = why
                log.exception("metrics-failed", extra={"path": path.decode("latin-1")})
            return _text(500, f"{why}\n")
        return _text(200, _INDEX) if path == b"/" else _text(404, _INDEX)

    async def _metrics(self, accept: str, zipped: bool) -> _Response:
        form = negotiate(accept)
        pieces: list[str] = []
        began = time.perf_counter()
        for piece in render(collect(self._view()), form):
            pieces.append(piece)
            if time.perf_counter() - began > self._limits.render_slice:
                await asyncio.sleep(0)  # the kubelet's calls go first
                began = time.perf_counter()
        body = "".join(pieces).encode()
        if not zipped:
            return _Response(200, CONTENT_TYPES[form], body)
        # Level 1 compresses to a tenth; level 9 saves little more and takes much longer.
        gzip = zlib.compressobj(level=1, wbits=31)
        body = gzip.compress(body) + gzip.flush()
        return _Response(200, CONTENT_TYPES[form], body, (("Content-Encoding", "gzip"),))


def _bind(address: Address) -> socket.socket:
    """Binds and listens; on IPv4 and IPv6 when no host is given and the node has both."""
    if not address.host and socket.has_dualstack_ipv6():
        try:
            family = socket.AF_INET6
            return socket.create_server(("", address.port), family=family, dualstack_ipv6=True)
        except OSError:
            pass  # IPv6 can be compiled in and turned off
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family)


def _header(request: h11.Request, wanted: bytes) -> str:
    return ",".join(v.decode("latin-1") for name, v in request.headers if name == wanted)


def _status(problem: str | None) -> _Response:
    return _text(200, "ok\n") if problem is None else _text(503, f"{problem}\n")


def _text(status: int, text: str) -> _Response:
    return _Response(status, _PLAIN, text.encode())


def _encode(http: h11.Connection, method: bytes, response: _Response) -> bytes:
    """The whole response; for HEAD with the length of the body, without the body."""
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        *response.headers,
    ]
    event = h11.Response(status_code=response.status, headers=headers)
    body = b"" if method == b"HEAD" else response.body
    parts = (http.send(event), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage()))
    return b"".join(part or b"" for part in parts)
