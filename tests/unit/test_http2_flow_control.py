"""Windows, both ways: what we may send, and what a peer may make us hold."""

from __future__ import annotations

import pytest

from moffett_device_plugin.grpc.connection import (
    MAX_STREAMS,
    RECEIVE_WINDOW,
    Connection,
    DataReceived,
    StreamReset,
)
from moffett_device_plugin.grpc.frames import MAX_WINDOW
from tests.support import http2
from tests.support.http2 import END_STREAM, FLOW_CONTROL_ERROR, fatal, frame, sent, server

TRAILERS = ((b"grpc-status", b"0"),)


def data_in(output: bytes) -> bytes:
    return b"".join(seen.payload for seen in sent(output) if seen.kind == http2.DATA)


def server_with_call(initial_window: int) -> Connection:
    connection = server()
    connection.receive(http2.settings((4, initial_window)) + http2.request(1, ended=True))
    connection.output()
    return connection


def test_a_list_passes_through_a_window_that_starts_at_zero_and_grows_by_a_byte() -> None:
    """A thousand devices are 30 kB; the trailers come after the last of them."""
    connection, message = server_with_call(0), bytes(range(250)) * 120
    connection.send_data(1, message)
    connection.send_headers(1, TRAILERS, ended=True)
    assert connection.output() == b""
    received = bytearray()
    while len(received) < len(message):
        assert connection.unsent_bytes(1) == len(message) - len(received)
        connection.receive(http2.window(1, 1))
        seen = sent(connection.output())
        assert [len(one.payload) for one in seen if one.kind == http2.DATA] == [1]
        received += seen[0].payload
    assert received == message
    assert [(one.kind, one.flags & END_STREAM) for one in seen] == [(0, 0), (1, END_STREAM)]
    assert not connection.is_open(1)


def test_the_window_of_the_connection_holds_back_all_its_streams() -> None:
    connection = server_with_call(10**6)
    connection.receive(http2.request(3, ended=True))
    connection.send_data(1, b"a" * 60_000)
    connection.send_data(3, b"b" * 60_000, ended=True)
    assert len(data_in(connection.output())) == 65_535
    connection.receive(http2.window(0, 60_000))
    assert len(data_in(connection.output())) == 120_000 - 65_535
    assert connection.unsent_bytes(1) == connection.unsent_bytes(3) == 0


def test_frames_of_ours_are_no_larger_than_every_peer_takes() -> None:
    connection = server_with_call(10**6)
    connection.send_data(1, b"x" * 50_000)
    assert [len(seen.payload) for seen in sent(connection.output())] == [16_384] * 3 + [848]


@pytest.mark.parametrize(("size", "largest"), [(0, 16_384), (20_000, 20_000), (2**24, 50_000)])
def test_a_peer_that_takes_larger_frames_gets_them(size: int, largest: int) -> None:
    connection = server_with_call(10**6)
    connection.receive(http2.settings((5, size)))
    connection.output()
    connection.send_data(1, b"x" * 50_000)
    assert max(len(seen.payload) for seen in sent(connection.output())) == largest


def test_a_window_that_shrinks_below_zero_has_to_grow_above_it_again() -> None:
    connection = server_with_call(100)
    connection.send_data(1, b"x" * 300)
    assert len(data_in(connection.output())) == 100
    connection.receive(http2.settings((4, 20)))  # the stream's window is now -80
    connection.receive(http2.window(1, 80))
    assert data_in(connection.output()) == b""
    connection.receive(http2.window(1, 1))
    assert len(data_in(connection.output())) == 1
    connection.receive(http2.settings((4, 70)))
    assert len(data_in(connection.output())) == 50
    connection.receive(http2.settings((4, 1000)))
    assert len(data_in(connection.output())) == 149


def test_an_empty_message_needs_no_window() -> None:
    connection = server_with_call(0)
    connection.send_data(1, b"", ended=True)
    assert [(seen.kind, seen.flags) for seen in sent(connection.output())] == [(0, END_STREAM)]


@pytest.mark.parametrize(
    "data",
    [
        http2.window(0, MAX_WINDOW),
        http2.window(0, 0),
        http2.settings((4, MAX_WINDOW + 1)),
        http2.settings((4, 100)) + http2.window(1, MAX_WINDOW - 100) + http2.settings((4, 101)),
    ],
    ids=["connection", "nothing", "setting", "setting and update"],
)
def test_a_window_that_no_one_may_have_ends_the_connection(data: bytes) -> None:
    connection = server_with_call(100)
    assert fatal(connection, data) == (
        FLOW_CONTROL_ERROR,
        [StreamReset(1, FLOW_CONTROL_ERROR)],
    )


@pytest.mark.parametrize("increment", [0, MAX_WINDOW])
def test_a_wrong_update_for_one_stream_ends_that_stream_only(increment: int) -> None:
    connection = server_with_call(1)
    events = connection.receive(http2.request(3) + http2.window(1, increment))
    assert events[1:] == [StreamReset(1, FLOW_CONTROL_ERROR)]
    assert [seen.kind for seen in sent(connection.output())] == [http2.RST_STREAM]
    assert connection.is_open(3)
    assert not connection.closed


def test_an_update_for_a_stream_that_has_ended_is_ignored() -> None:
    connection = server_with_call(1)
    connection.receive(http2.reset(1) + http2.window(1, 5))
    assert connection.output() == b""
    assert not connection.closed


def fill(connection: Connection, stream_id: int, size: int) -> int:
    """Sends `size` bytes on a stream; returns how many of them reached the owner."""
    arrived = 0
    while size > 0 and not connection.closed:
        part = min(size, 16_384)
        for event in connection.receive(frame(http2.DATA, 0, stream_id, b"x" * part)):
            arrived += len(event.data) if isinstance(event, DataReceived) else 0
        size -= part
    return arrived


def test_a_stream_holds_no_more_than_its_window() -> None:
    connection = server()
    connection.receive(http2.request(1))
    assert fill(connection, 1, RECEIVE_WINDOW) == RECEIVE_WINDOW
    connection.output()
    code, _ = fatal(connection, frame(http2.DATA, 0, 1, b"x"))
    assert code == FLOW_CONTROL_ERROR


def test_padding_counts_against_the_window() -> None:
    connection = server()
    connection.receive(http2.request(1))
    padded = frame(http2.DATA, http2.PADDED, 1, b"\xff" + b"\0" * 255)
    for _ in range(RECEIVE_WINDOW // 256):
        connection.receive(padded)
    assert not connection.closed
    assert fatal(connection, padded)[0] == FLOW_CONTROL_ERROR


def test_what_was_consumed_may_be_sent_again() -> None:
    connection = server()
    connection.receive(http2.request(1))
    for _ in range(3):
        assert fill(connection, 1, RECEIVE_WINDOW) == RECEIVE_WINDOW
        connection.output()
        connection.consumed(1)
        assert connection.output() == http2.window(1, RECEIVE_WINDOW)
        connection.consumed(1)
        assert connection.output() == b"", "given back once"


def test_the_connection_is_given_back_as_much_as_was_received() -> None:
    """Else a kubelet that stays for months would one day be stuck."""
    connection = server()
    for stream_id in range(1, 2 * MAX_STREAMS, 2):
        connection.receive(http2.request(stream_id))
        fill(connection, stream_id, 300_000)
        connection.receive(http2.reset(stream_id))
    # Data that crosses our RST_STREAM counts for the connection too.
    connection.receive(frame(http2.DATA, 0, 1, b"x" * 16_384) * 50)
    total = MAX_STREAMS * 300_000 + 50 * 16_384
    updates = [int.from_bytes(one.payload, "big") for one in sent(connection.output())]
    assert 0 <= total - sum(updates) < RECEIVE_WINDOW // 2
