"""How streams end: by both sides, by either, by a reset, by GOAWAY."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moffett_device_plugin.grpc.connection import (
    Connection,
    DataReceived,
    GoneAway,
    HeadersReceived,
    StreamReset,
)
from moffett_device_plugin.grpc.frames import ErrorCode
from tests.support import http2
from tests.support.http2 import END_HEADERS, END_STREAM, fatal, frame, sent, server

STATUS = ((b":status", b"200"),)
TRAILERS = ((b"grpc-status", b"0"),)
THEIR_END = frame(http2.DATA, END_STREAM, 1, b"")


def half_closed_by_peer(connection: Connection) -> None:
    connection.receive(THEIR_END)


def half_closed_by_us(connection: Connection) -> None:
    connection.send_headers(1, TRAILERS, ended=True)


def waiting_for_a_window(connection: Connection) -> None:
    connection.receive(http2.settings((4, 0)) + THEIR_END)
    connection.send_data(1, b"more than the peer takes")
    connection.send_headers(1, TRAILERS, ended=True)


def nothing(connection: Connection) -> None:
    pass


@pytest.mark.parametrize(
    "state", [nothing, half_closed_by_peer, half_closed_by_us, waiting_for_a_window]
)
def test_a_reset_ends_a_stream_in_every_state(state: Callable[[Connection], None]) -> None:
    connection = server()
    connection.receive(http2.request(1))
    state(connection)
    connection.output()
    assert connection.receive(http2.reset(1)) == [StreamReset(1, http2.CANCEL)]
    assert not connection.is_open(1)
    connection.send_headers(1, STATUS)
    connection.send_data(1, b"too late")
    connection.send_headers(1, TRAILERS, ended=True)
    connection.reset(1)
    connection.receive(http2.window(0, 100) + http2.settings((4, 100)))
    assert [seen.kind for seen in sent(connection.output())] == [http2.SETTINGS], "the ack only"


@pytest.mark.parametrize("stream_id", [1, 99])
def test_a_reset_of_what_has_ended_or_never_was_is_ignored(stream_id: int) -> None:
    connection = server()
    connection.receive(http2.request(1) + http2.reset(1))
    assert connection.receive(http2.reset(stream_id)) == []
    assert not connection.closed


def test_what_crosses_our_reset_is_ignored() -> None:
    connection = server()
    connection.receive(http2.request(1))
    connection.reset(1)
    (seen,) = sent(connection.output())
    assert (seen.kind, seen.stream_id, seen.payload) == (3, 1, b"\0\0\0\x08")
    late = frame(http2.DATA, 0, 1, b"late") + http2.request(1, ended=True) + THEIR_END
    assert connection.receive(late) == []
    assert not connection.closed


@pytest.mark.parametrize("more", [frame(http2.DATA, 0, 1, b"x"), http2.request(1, ended=True)])
def test_more_after_the_end_of_a_stream_ends_the_connection(more: bytes) -> None:
    connection = server()
    connection.receive(http2.request(1, ended=True))
    assert fatal(connection, more)[0] == http2.STREAM_CLOSED


def test_trailers_of_the_peer_end_its_side() -> None:
    connection = server()
    connection.receive(http2.request(1) + frame(http2.DATA, 0, 1, b"x"))
    trailers = frame(http2.HEADERS, END_HEADERS | END_STREAM, 1, http2.block((("a", "b"),)))
    assert connection.receive(trailers) == [HeadersReceived(1, ((b"a", b"b"),), True)]
    connection.send_headers(1, TRAILERS, ended=True)
    assert not connection.is_open(1)


def test_a_stream_is_open_until_both_sides_have_ended_it() -> None:
    connection = server()
    connection.receive(http2.request(1))
    connection.send_headers(1, TRAILERS, ended=True)
    assert connection.is_open(1)
    assert connection.receive(THEIR_END) == [DataReceived(1, b"", True)]
    assert not connection.is_open(1)


def test_we_say_nothing_after_our_own_end() -> None:
    connection = server()
    connection.receive(http2.request(1))
    connection.send_headers(1, TRAILERS, ended=True)
    connection.output()
    connection.send_data(1, b"more")
    connection.send_headers(1, STATUS)
    assert connection.output() == b""


@pytest.mark.parametrize("ended", [False, True])
def test_only_a_peer_that_still_sends_is_told_to_stop(ended: bool) -> None:
    connection = server()
    connection.receive(http2.request(1, ended=ended))
    connection.send_headers(1, TRAILERS, ended=True)
    connection.refuse_rest(1)
    kinds = [seen.kind for seen in sent(connection.output())]
    assert kinds == [http2.HEADERS] + ([] if ended else [http2.RST_STREAM])
    assert not connection.is_open(1)


def test_a_peer_that_goes_away_is_reported_with_the_last_stream_it_knows() -> None:
    connection = http2.client()
    first = connection.open_stream(STATUS)
    goaway = frame(http2.GOAWAY, 0, 0, b"\x80\0\0\x01" + b"\0\0\0\x0b" + b"debug data")
    assert connection.receive(goaway) == [GoneAway(1, ErrorCode.ENHANCE_YOUR_CALM)]
    answer = frame(http2.HEADERS, END_HEADERS, first, http2.block(((":status", "200"),)))
    assert connection.receive(answer) == [HeadersReceived(first, STATUS, False)]


def test_going_away_tells_the_last_stream_once_and_then_listens_no_more() -> None:
    connection = server()
    connection.receive(http2.request(1) + http2.request(5))
    connection.close()
    connection.close()
    (seen,) = sent(connection.output())
    assert (seen.kind, seen.payload) == (http2.GOAWAY, b"\0\0\0\x05" + b"\0\0\0\0")
    assert connection.receive(http2.request(7)) == []
    assert connection.output() == b""


def test_a_connection_cut_within_a_frame_leaves_its_streams_to_the_owner() -> None:
    connection = server()
    whole = http2.request(1) + frame(http2.DATA, END_STREAM, 1, b"question")
    assert len(connection.receive(whole[:-1])) == 1
    assert connection.is_open(1)
    assert connection.receive(whole[-1:]) == [DataReceived(1, b"question", True)]


@pytest.mark.parametrize("stream_id", [2, 3, 0])
def test_a_server_cannot_open_streams(stream_id: int) -> None:
    connection = http2.client()
    first = connection.open_stream(STATUS)
    answer = frame(http2.HEADERS, END_HEADERS, stream_id, http2.block(((":status", "200"),)))
    code, events = fatal(connection, answer)
    assert (code, events) == (http2.PROTOCOL_ERROR, [StreamReset(first, http2.PROTOCOL_ERROR)])
