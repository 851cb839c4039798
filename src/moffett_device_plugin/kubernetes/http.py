"""One HTTP/1.1 connection over TLS, with h11 and asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Self

import h11

from .settings import ApiSettings

#: Larger than any object of the API server: etcd stores 1.5 MiB at most, and JSON is larger
#: than what etcd stores.
MAX_BODY = 4 * 1024 * 1024
_MAX_HEADERS = 64 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class NoResponseError(Exception):
    """The exchange did not complete. `kind` is stable for each cause; `nothing_received` is
    True when no byte of a response had arrived."""

    def __init__(self, kind: str, text: str, *, nothing_received: bool = False) -> None:
        super().__init__(text)
        self.kind = kind
        self.nothing_received = nothing_received


class HttpConnection:
    """Created by `open`, ended by `close`. One exchange at a time; a failure raises
    NoResponseError and closes the connection. Timeouts are up to the caller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADERS)
        self._received = False
        self.exchanges = 0

    @classmethod
    async def open(cls, settings: ApiSettings) -> Self:
        """Raises NoResponseError."""
        try:
            async with asyncio.timeout(settings.connect_timeout):
                reader, writer = await asyncio.open_connection(
                    settings.host,
                    settings.port,
                    ssl=_tls(settings),
                    server_hostname=settings.host,
                )
        except ssl.SSLCertVerificationError as error:
            raise NoResponseError("certificate", f"certificate: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise NoResponseError("tls", f"TLS: {error.reason or error}") from error
        except TimeoutError as error:
            text = f"no connection in {settings.connect_timeout:g} s"
            raise NoResponseError("timeout", text) from error
        except OSError as error:
            # The text of asyncio has only the address; that of the system has the cause.
            number = error.errno or 0
            text = os.strerror(number) if number > 0 else error.strerror or str(error)
            raise NoResponseError(f"os-{number}", text, nothing_received=True) from error
        connection = cls(reader, writer)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a watch can be idle for long
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        return connection

    @property
    def reusable(self) -> bool:
        idle = self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE
        return idle and not self._reader.at_eof() and not self._writer.is_closing()

    async def exchange(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        """Sends a request and returns the complete response."""
        response = await self.begin(method, target, headers, body)
        parts = bytearray()
        async for data in self.data():
            parts += data
            if len(parts) > MAX_BODY:
                self.close()
                raise NoResponseError("too-long", f"the response is longer than {MAX_BODY} bytes")
        return Response(response.status, response.headers, bytes(parts))

    async def begin(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        """Sends a request and returns the response without its body, which `data` gives."""
        self._received = False
        self.exchanges += 1
        request = h11.Request(method=method, target=target, headers=headers)
        data = [self._http.send(request)]
        if body:
            data.append(self._http.send(h11.Data(data=body)))
        data.append(self._http.send(h11.EndOfMessage()))
        try:
            self._writer.write(b"".join(part for part in data if part))
            await self._writer.drain()
        except OSError as error:
            raise self._broken(error) from error
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                return Response(event.status_code, fields)
            if not isinstance(event, h11.InformationalResponse):
                raise self._broken(None)

    async def data(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. After it the connection can be used again."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                else:
                    self.close()
                return
            else:
                raise self._broken(None)

    def close(self) -> None:
        self._writer.transport.abort()

    async def _next(self) -> object:
        ended = False
        while True:
            try:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                data = await self._reader.read(_CHUNK)
                ended = not data
                self._received = self._received or not ended
                self._http.receive_data(data)
            except h11.RemoteProtocolError as error:
                if ended:
                    raise self._broken(None) from error
                self.close()
                raise NoResponseError("http", f"not HTTP: {error}") from error
            except OSError as error:
                raise self._broken(error) from error

    def _broken(self, error: OSError | None) -> NoResponseError:
        self.close()
        text = "the server closed the connection"
        if isinstance(error, ssl.SSLError):
            text = f"TLS: {error.reason or error}"
        elif error is not None and error.strerror:
            text = error.strerror
        return NoResponseError("closed", text, nothing_received=not self._received)


def _tls(settings: ApiSettings) -> ssl.SSLContext:
    """Trusts only the cluster's CA, and verifies the name or address of the server.

    Not `create_default_context`: since Python 3.13 it rejects CAs without an authority
    key identifier, which many clusters have.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(settings.ca_file)
    except OSError as error:  # an SSLError is one
        text = f"{settings.ca_file}: {error.strerror or 'no certificate in it'}"
        raise NoResponseError("ca-file", text) from error
    return context
