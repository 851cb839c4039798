from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moffett_device_plugin.grpc import frames
from moffett_device_plugin.grpc.frames import ErrorCode, Flag, Frame, Kind, ProtocolError
from tests.support import http2


@settings(deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 255),
    st.integers(0, 2**31 - 1),
    st.binary(max_size=300),
    st.binary(max_size=20),
)
def test_a_frame_survives_the_wire_and_what_follows_it_stays(
    kind: int, flags: int, stream_id: int, payload: bytes, rest: bytes
) -> None:
    wire = frames.encode(kind, flags, stream_id, payload)
    assert wire == http2.frame(kind, flags, stream_id, payload)
    buffer = bytearray(wire + rest)
    assert frames.take(buffer) == Frame(kind, flags, stream_id, payload)
    assert buffer == rest


def test_a_frame_that_is_not_whole_waits_for_the_rest() -> None:
    wire = http2.frame(http2.DATA, 0, 1, b"hello")
    for cut in range(len(wire)):
        buffer = bytearray(wire[:cut])
        assert frames.take(buffer) is None
        assert buffer == wire[:cut]


def test_the_reserved_bit_of_the_stream_number_is_ignored() -> None:
    taken = frames.take(bytearray(http2.frame(http2.DATA, 0, 0x8000_0003)))
    assert taken is not None
    assert taken.stream_id == 3


@pytest.mark.parametrize("payload", [b"", b"x" * 16_385])
def test_a_frame_too_large_is_refused_by_its_header_alone(payload: bytes) -> None:
    header = (16_385).to_bytes(3, "big") + http2.frame(http2.DATA, 0, 1)[3:]
    with pytest.raises(ProtocolError) as caught:
        frames.take(bytearray(header + payload))
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR


def test_the_largest_allowed_frame_is_taken() -> None:
    taken = frames.take(bytearray(http2.frame(http2.DATA, 0, 1, b"x" * 16_384)))
    assert taken is not None
    assert len(taken.payload) == 16_384


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "expected"),
    [
        (Kind.DATA, Flag.NONE, b"abc", b"abc"),
        (Kind.DATA, Flag.PADDED, b"\x02abc\0\0", b"abc"),
        (Kind.DATA, Flag.PADDED, b"\0abc", b"abc"),
        (Kind.DATA, Flag.PADDED, b"\x03\0\0\0", b""),
        (Kind.DATA, Flag.PRIORITY, b"abcdef", b"abcdef"),
        (Kind.HEADERS, Flag.PRIORITY, b"\0\0\0\x01\x10abc", b"abc"),
        (Kind.HEADERS, Flag.PRIORITY | Flag.PADDED, b"\x01\0\0\0\x01\x10abc\0", b"abc"),
    ],
)
def test_padding_and_priority_are_taken_off(
    kind: int, flags: Flag, payload: bytes, expected: bytes
) -> None:
    assert frames.unpadded(Frame(kind, flags, 1, payload)) == expected


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "code"),
    [
        (Kind.DATA, Flag.PADDED, b"", ErrorCode.PROTOCOL_ERROR),
        (Kind.DATA, Flag.PADDED, b"\x04\0\0\0", ErrorCode.PROTOCOL_ERROR),
        (Kind.HEADERS, Flag.PRIORITY, b"\0\0\0\x01", ErrorCode.FRAME_SIZE_ERROR),
        (Kind.HEADERS, Flag.PRIORITY | Flag.PADDED, b"\x01\0\0\0\0\0", ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_more_padding_or_priority_than_payload_is_refused(
    kind: int, flags: Flag, payload: bytes, code: ErrorCode
) -> None:
    with pytest.raises(ProtocolError) as caught:
        frames.unpadded(Frame(kind, flags, 1, payload))
    assert caught.value.code is code


def test_settings_survive_the_wire() -> None:
    taken = frames.take(bytearray(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 2**31 - 1})))
    assert taken is not None
    assert frames.parse_settings(taken.payload) == [(4, 2**31 - 1)]


@pytest.mark.parametrize("size", [1, 5, 7])
def test_settings_of_an_odd_length_are_refused(size: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        frames.parse_settings(b"\0" * size)
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=400), st.binary(max_size=400))))
def test_any_headers_are_read_by_a_standard_decoder(headers: list[tuple[bytes, bytes]]) -> None:
    decoded = hpack.Decoder(2**20).decode(frames.header_block(tuple(headers)), raw=True)
    assert [tuple(item) for item in decoded] == headers


@pytest.mark.parametrize("size", [126, 127, 128, 254, 255, 256, 16_510, 16_511, 2_000_000])
def test_header_lengths_around_each_limit_of_their_encoding(size: int) -> None:
    decoded = hpack.Decoder(2**22).decode(frames.header_block(((b"n", b"v" * size),)), raw=True)
    assert [tuple(item) for item in decoded] == [(b"n", b"v" * size)]
