"""What gRPC adds to HTTP/2: message framing, status codes, trailers. No I/O."""

from __future__ import annotations

from enum import IntEnum
from urllib.parse import unquote

from .connection import Headers

#: Maximum request size of the server, in bytes. A request for one of 10,000 devices has
#: about 250 kB.
MAX_REQUEST = 1024 * 1024 - 64
#: Maximum message size of the client, in bytes: the same as the kubelet's.
MAX_RESPONSE = 16 * 1024 * 1024 - 64

#: Maximum length of an error text, in bytes of UTF-8. Encoded it is up to three times
#: longer, and the gRPC libraries reject trailers above 8 KiB.
MAX_TEXT = 2048


class Code(IntEnum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class StatusError(Exception):
    """A call that ended with a status other than OK; `text` is its message."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text


RESPONSE_HEADERS: Headers = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK_TRAILERS: Headers = ((b"grpc-status", b"0"),)


def trailers(code: Code, text: str = "") -> Headers:
    if code is Code.OK:
        return OK_TRAILERS
    return ((b"grpc-status", str(int(code)).encode()), (b"grpc-message", escape(text)))


def request_headers(path: str, authority: str) -> Headers:
    return (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )


def escape(text: str) -> bytes:
    """Percent-encodes a grpc-message: all but printable ASCII, and '%'.

    Cut to MAX_TEXT bytes at a character boundary.
    """
    whole = text.encode(errors="replace")[:MAX_TEXT].decode(errors="ignore")
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in whole.encode()
    )


def status_of(headers: Headers) -> tuple[Code, str] | None:
    """The status in these trailers; None if they have none."""
    fields = dict(headers)
    raw = fields.get(b"grpc-status")
    if raw is None:
        return None
    try:
        code = Code(int(raw))
    except ValueError:
        code = Code.UNKNOWN
    return code, unquote(fields.get(b"grpc-message", b"").decode(errors="replace"))


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def take(buffer: bytearray, limit: int) -> bytes | None:
    """Removes and returns the first complete message in `buffer`; None if it is incomplete.
    Raises StatusError for a compressed message, or one above `limit` bytes."""
    if len(buffer) < 5:
        return None
    if buffer[0]:
        raise StatusError(Code.UNIMPLEMENTED, "compressed messages are not supported")
    length = int.from_bytes(buffer[1:5], "big")
    if length > limit:
        raise StatusError(
            Code.RESOURCE_EXHAUSTED, f"a message of {length} bytes; the limit is {limit}"
        )
    if len(buffer) < 5 + length:
        return None
    message = bytes(buffer[5 : 5 + length])
    del buffer[: 5 + length]
    return message
