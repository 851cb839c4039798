"""The other side of an HTTP/2 connection, frame by frame and without our own encoder."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import hpack

from moffett_device_plugin.grpc.connection import Connection, Event

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW, CONT = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 1, 3, 5, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 8, 9, 11

REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/Echo"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)
HELLO = b"\x00\x00\x00\x00\x05hello"  # as a message of gRPC


@dataclass(frozen=True)
class Seen:
    """A frame that our side sent."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + struct.pack(">BBI", kind, flags, stream_id)
        + (payload)
    )


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW, stream_id=stream_id, payload=struct.pack(">I", increment))


def reset(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, stream_id=stream_id, payload=struct.pack(">I", code))


def block(headers: tuple[tuple[str, str], ...] = REQUEST) -> bytes:
    """A header block that leaves the peer's HPACK table as it was."""
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*item) for item in headers])


def request(stream_id: int, *, ended: bool = False) -> bytes:
    flags = END_HEADERS | (END_STREAM if ended else 0)
    return frame(HEADERS, flags, stream_id, block())


def headers(stream_id: int, fields: dict[str, str], *, ended: bool = False) -> bytes:
    flags = END_HEADERS | (END_STREAM if ended else 0)
    return frame(HEADERS, flags, stream_id, block(tuple(fields.items())))


def call(
    stream_id: int, path: str, body: bytes = HELLO, changed: dict[str, str | None] | None = None
) -> bytes:
    """A whole request, with some fields changed or (None) left out."""
    fields = dict(REQUEST) | {":path": path}
    present = {name: text for name, text in (fields | (changed or {})).items() if text is not None}
    return headers(stream_id, present) + frame(DATA, END_STREAM, stream_id, body)


def sent(data: bytes) -> list[Seen]:
    """The frames in what our side wrote; nothing may be left over."""
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        kind, flags, stream_id = struct.unpack(">BBI", data[3:9])
        assert len(data) >= 9 + length
        found.append(Seen(kind, flags, stream_id, data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def server() -> Connection:
    """Ours, after the greetings."""
    connection = Connection(client=False)
    assert connection.receive(PREFACE + settings()) == []
    connection.output()
    return connection


def client(window_size: int = 65_535) -> Connection:
    connection = Connection(client=True)
    assert connection.receive(settings((4, window_size))) == []
    connection.output()
    return connection


def fatal(connection: Connection, data: bytes) -> tuple[int, list[Event]]:
    """The code of the GOAWAY that `data` provokes, and what the owner is told."""
    events = connection.receive(data)
    assert connection.closed
    (goaway,) = [seen for seen in sent(connection.output()) if seen.kind == GOAWAY]
    return int.from_bytes(goaway.payload[4:8], "big"), events
