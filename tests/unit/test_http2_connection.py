"""Greetings, requests and their header blocks, and what closes a connection."""

from __future__ import annotations

import hpack
import pytest

from moffett_device_plugin.grpc.connection import (
    MAX_STREAMS,
    Connection,
    DataReceived,
    Event,
    HeadersReceived,
    StreamReset,
)
from tests.support import http2
from tests.support.http2 import END_HEADERS, END_STREAM, fatal, frame, sent, server

HEADERS = tuple((name.encode(), value.encode()) for name, value in http2.REQUEST)
EXCHANGE = (
    http2.PREFACE
    + http2.settings((3, 100), (4, 65_535), (0xFFFF, 7))
    + frame(http2.PRIORITY, 0, 1, b"\0\0\0\0\x10")
    + frame(http2.HEADERS, 0, 1, http2.block()[:20])
    + frame(http2.CONT, 0, 1, http2.block()[20:21])
    + frame(http2.CONT, END_HEADERS, 1, http2.block()[21:])
    + frame(0x42, 0xFF, 77, b"from a later standard")
    + frame(http2.DATA, http2.PADDED, 1, b"\x03one\0\0\0")
    + frame(http2.PING, 0, 0, b"12345678")
    + frame(http2.DATA, END_STREAM, 1, b"two")
)
EXPECTED: list[Event] = [
    HeadersReceived(1, HEADERS, False),
    DataReceived(1, b"one", False),
    DataReceived(1, b"two", True),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 100, len(EXCHANGE)])
def test_input_means_the_same_however_it_is_cut(size: int) -> None:
    connection = Connection(client=False)
    events = []
    for at in range(0, len(EXCHANGE), size):
        events += connection.receive(EXCHANGE[at : at + size])
    assert events == EXPECTED
    acks = [(seen.kind, seen.payload) for seen in sent(connection.output()) if seen.flags == 1]
    assert acks == [(http2.SETTINGS, b""), (http2.PING, b"12345678")]


def test_both_roles_greet_each_other_and_exchange_a_call() -> None:
    ours, theirs = Connection(client=True), Connection(client=False)
    stream_id = ours.open_stream(HEADERS)
    ours.send_data(stream_id, b"question", ended=True)
    assert theirs.receive(ours.output()) == [
        HeadersReceived(1, HEADERS, False),
        DataReceived(1, b"question", True),
    ]
    theirs.send_headers(1, ((b":status", b"200"),))
    theirs.send_data(1, b"answer")
    theirs.send_headers(1, ((b"grpc-status", b"0"),), ended=True)
    assert ours.receive(theirs.output()) == [
        HeadersReceived(1, ((b":status", b"200"),), False),
        DataReceived(1, b"answer", False),
        HeadersReceived(1, ((b"grpc-status", b"0"),), True),
    ]
    assert not ours.is_open(1)
    assert not theirs.is_open(1)


def test_answers_to_settings_and_ping_are_not_answered() -> None:
    connection = server()
    connection.receive(frame(http2.SETTINGS, http2.ACK) + frame(http2.PING, http2.ACK, 0, b"8" * 8))
    assert connection.output() == b""


@pytest.mark.parametrize(
    ("role", "data", "code"),
    [
        ("server", b"GET / HTTP/1.1\r\n", http2.PROTOCOL_ERROR),
        ("server", http2.PREFACE + http2.request(1), http2.PROTOCOL_ERROR),
        ("client", frame(http2.PING, 0, 0, b"12345678"), http2.PROTOCOL_ERROR),
        ("client", http2.settings() + frame(http2.PUSH_PROMISE, 4, 1, b"x"), http2.PROTOCOL_ERROR),
    ],
)
def test_a_peer_that_does_not_greet_or_pushes_is_sent_away(
    role: str, data: bytes, code: int
) -> None:
    assert fatal(Connection(client=role == "client"), data) == (code, [])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(http2.PING, 0, 0, b"short"), http2.FRAME_SIZE_ERROR),
        (frame(http2.SETTINGS, 0, 0, b"short"), http2.FRAME_SIZE_ERROR),
        (frame(http2.RST_STREAM, 0, 1, b"abc"), http2.FRAME_SIZE_ERROR),
        (frame(http2.WINDOW, 0, 0, b"abc"), http2.FRAME_SIZE_ERROR),
        (frame(http2.GOAWAY, 0, 0, b"short"), http2.FRAME_SIZE_ERROR),
        (b"\x00\x40\x01" + frame(http2.DATA, 0, 1)[3:], http2.FRAME_SIZE_ERROR),
        (frame(http2.DATA, 0, 0, b"x"), http2.PROTOCOL_ERROR),
        (frame(http2.DATA, 0, 7, b"x"), http2.PROTOCOL_ERROR),
        (frame(http2.DATA, http2.PADDED, 1, b"\x09x"), http2.PROTOCOL_ERROR),
        (http2.request(0), http2.PROTOCOL_ERROR),
        (http2.request(2), http2.PROTOCOL_ERROR),
        (frame(http2.CONT, END_HEADERS, 1, http2.block()), http2.PROTOCOL_ERROR),
        (frame(http2.HEADERS, 0, 3, b"") + http2.request(5), http2.PROTOCOL_ERROR),
        (frame(http2.HEADERS, 0, 3, b"") + frame(http2.CONT, 0, 5), http2.PROTOCOL_ERROR),
        (frame(http2.HEADERS, 0, 3, b"") + frame(http2.PING, 0, 0, b"8" * 8), http2.PROTOCOL_ERROR),
    ],
)
def test_a_violation_ends_the_connection_and_every_open_stream(data: bytes, code: int) -> None:
    connection = server()
    connection.receive(http2.request(1))
    assert fatal(connection, data) == (code, [StreamReset(1, code)])
    assert not connection.is_open(1)
    assert connection.receive(http2.request(9)) == []
    assert connection.output() == b"", "said once is enough"


@pytest.mark.parametrize(
    "bad",
    [
        b"\x80",  # index 0
        b"\xff\xff\xff\xff\x0f",  # an index far outside of the table
        b"\xff" + b"\xff" * 50,  # an integer without end
        b"\x40\x0aabc",  # a name that is cut
        b"\x00\x01n\x81\x00",  # huffman code that is none
        b"\x3f\xe1\xff\x03",  # a table larger than was allowed
        b"\x82\x20",  # a table size after a field
    ],
)
def test_a_header_block_that_cannot_be_decoded_ends_the_connection(bad: bytes) -> None:
    """The two sides' tables no longer agree, so no later block could be trusted."""
    code, events = fatal(server(), frame(http2.HEADERS, END_HEADERS, 1, bad))
    assert code == http2.COMPRESSION_ERROR
    assert events == []


def test_header_blocks_of_streams_that_are_not_wanted_are_decoded_all_the_same() -> None:
    connection, encoder = server(), hpack.Encoder()
    for stream_id in range(1, 2 * MAX_STREAMS, 2):
        connection.receive(http2.request(stream_id))
    refused = 2 * MAX_STREAMS + 1
    indexed = encoder.encode([*http2.REQUEST, ("x-new", "value")])
    assert connection.receive(frame(http2.HEADERS, END_HEADERS, refused, indexed)) == []
    connection.receive(http2.reset(1))
    again = encoder.encode([*http2.REQUEST, ("x-new", "value")])
    assert len(again) < len(http2.REQUEST) + 2, "it refers to the table"
    (event,) = connection.receive(frame(http2.HEADERS, END_HEADERS, refused + 2, again))
    assert isinstance(event, HeadersReceived)
    assert event.headers == (*HEADERS, (b"x-new", b"value"))


def test_a_block_too_large_to_keep_ends_the_connection_before_it_is_complete() -> None:
    part = frame(http2.CONT, 0, 1, b"\0" * 8000)
    code, _ = fatal(server(), frame(http2.HEADERS, 0, 1, b"\0" * 8000) + part + part)
    assert code == http2.ENHANCE_YOUR_CALM


def test_a_small_block_that_expands_to_a_large_list_ends_the_connection() -> None:
    """One entry of the table, named again and again: a header bomb."""
    bomb = b"\x40\x01n\x7f\xd1\x0e" + b"v" * 2000 + b"\xbe" * 10_000
    code, _ = fatal(server(), frame(http2.HEADERS, END_HEADERS, 1, bomb))
    assert code == http2.ENHANCE_YOUR_CALM


def test_streams_beyond_the_limit_are_refused_and_room_is_made_by_an_end() -> None:
    connection = server()
    last = 2 * MAX_STREAMS - 1
    for stream_id in range(1, last + 1, 2):
        assert len(connection.receive(http2.request(stream_id))) == 1
    assert connection.receive(http2.request(last + 2) + frame(0, 0, last + 2, b"data")) == []
    (refusal,) = sent(connection.output())
    assert (refusal.kind, refusal.stream_id) == (http2.RST_STREAM, last + 2)
    assert int.from_bytes(refusal.payload, "big") == http2.REFUSED_STREAM
    connection.receive(http2.reset(1))
    assert len(connection.receive(http2.request(last + 4))) == 1


def test_the_limits_are_announced() -> None:
    (first, *_) = sent(Connection(client=False).output())
    pairs = [first.payload[at : at + 6] for at in range(0, len(first.payload), 6)]
    told = {int.from_bytes(p[:2], "big"): int.from_bytes(p[2:], "big") for p in pairs}
    assert told == {4: 2**20, 3: MAX_STREAMS, 6: 16_384}


@pytest.mark.parametrize("size", [0, 100, 65_536])
def test_a_peer_that_resizes_its_header_table_can_read_our_headers(size: int) -> None:
    connection, decoder = server(), hpack.Decoder()
    connection.receive(http2.request(1) + http2.settings((1, size)))
    decoder.max_allowed_table_size = size  # from now on it insists on being told
    connection.send_headers(1, ((b":status", b"200"),))
    connection.send_headers(1, ((b"grpc-status", b"0"),), ended=True)
    blocks = [seen.payload for seen in sent(connection.output()) if seen.kind == http2.HEADERS]
    assert [tuple(decoder.decode(each, raw=True)) for each in blocks] == [
        ((b":status", b"200"),),
        ((b"grpc-status", b"0"),),
    ]


def test_long_headers_of_ours_are_continued() -> None:
    connection = http2.client()
    connection.open_stream((*HEADERS, (b"long", b"v" * 40_000)))
    seen = sent(connection.output())
    assert [(one.kind, one.flags) for one in seen] == [(1, 0), (9, 0), (9, END_HEADERS)]
    assert max(len(one.payload) for one in seen) == 16_384
    whole = b"".join(one.payload for one in seen)
    decoded = dict(hpack.Decoder(2**17).decode(whole, raw=True))
    assert decoded[b"long"] == b"v" * 40_000
