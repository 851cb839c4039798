"""HTTP/2 frames (RFC 9113, sections 4 and 6): parsing and encoding. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE = 9
DEFAULT_FRAME_SIZE = 16_384
DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
#: HPACK dynamic table size update to 0. A peer that changes its table size expects an
#: update (RFC 7541, section 4.2). No table is used here, so any size is valid.
NO_TABLE = b"\x20"


class Kind:
    """Frame types. Plain integers, like the flags: enums cost 20 us per call."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag:
    """Flag bits of frames; some have two meanings, depending on the frame type."""

    NONE = 0
    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class ErrorCode(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ProtocolError(Exception):
    """The peer violated the protocol; the connection is closed with `code`."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Frame:
    """One received frame. `kind` is an integer, since unknown types are ignored."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def encode(kind: int, flags: int, stream_id: int, payload: bytes | memoryview = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big")
        + bytes((kind, flags))
        + stream_id.to_bytes(4, "big")
        + payload
    )


def take(buffer: bytearray, max_size: int = DEFAULT_FRAME_SIZE) -> Frame | None:
    """Removes and returns the first complete frame in `buffer`; None if it is incomplete.

    Raises ProtocolError for a frame larger than `max_size` bytes of payload.
    """
    if len(buffer) < HEADER_SIZE:
        return None
    length = (buffer[0] << 16) | (buffer[1] << 8) | buffer[2]
    if length > max_size:
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
    end = HEADER_SIZE + length
    if len(buffer) < end:
        return None
    frame = Frame(
        kind=buffer[3],
        flags=buffer[4],
        stream_id=int.from_bytes(buffer[5:9], "big") & 0x7FFF_FFFF,
        payload=bytes(buffer[HEADER_SIZE:end]),
    )
    del buffer[:end]
    return frame


def unpadded(frame: Frame) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding and priority."""
    payload = frame.payload
    if frame.flags & Flag.PADDED:
        if not payload or payload[0] >= len(payload):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
        payload = payload[1 : len(payload) - payload[0]]
    if frame.kind == Kind.HEADERS and frame.flags & Flag.PRIORITY:
        if len(payload) < 5:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
        payload = payload[5:]
    return payload


def settings(values: dict[Setting, int]) -> bytes:
    payload = b"".join(
        key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items()
    )
    return encode(Kind.SETTINGS, Flag.NONE, 0, payload)


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % 6:
        raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of an odd length")
    return [
        (int.from_bytes(payload[i : i + 2], "big"), int.from_bytes(payload[i + 2 : i + 6], "big"))
        for i in range(0, len(payload), 6)
    ]


def window_update(stream_id: int, increment: int) -> bytes:
    return encode(Kind.WINDOW_UPDATE, Flag.NONE, stream_id, increment.to_bytes(4, "big"))


@lru_cache(maxsize=64)  # a server sends the same few headers again and again
def header_block(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """HPACK without a dynamic table: each field as a literal, never indexed.

    Every peer must accept this form, and the few fields of gRPC are short.
    """
    out = bytearray()
    for name, value in headers:
        out.append(0)
        for text in (name, value):
            _put_length(out, len(text))
            out += text
    return bytes(out)


def _put_length(out: bytearray, length: int) -> None:
    """An HPACK integer with a 7-bit prefix (RFC 7541, section 5.1)."""
    if length < 127:
        out.append(length)
        return
    out.append(127)
    length -= 127
    while length >= 128:
        out.append(length % 128 + 128)
        length //= 128
    out.append(length)
