"""Whatever a peer sends: no exception, and no more memory than was promised."""

from __future__ import annotations

from itertools import pairwise

import hpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moffett_device_plugin.grpc.connection import (
    MAX_HEADER_BYTES,
    MAX_STREAMS,
    Connection,
    DataReceived,
    HeadersReceived,
    StreamReset,
)
from tests.support import http2
from tests.support.http2 import END_HEADERS, frame

WINDOW = 2_000
#: A machine that is busy is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
HELD = ((b":status", b"200"),)

numbers = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 9, 2**31 - 1])
names = st.sampled_from([":path", ":status", "te", "x", ""])
fields = st.lists(st.tuples(names, st.text(max_size=40)), max_size=6)
header_blocks = st.one_of(
    st.binary(max_size=60),
    fields.map(lambda items: hpack.Encoder().encode(items)),
    st.just(b"\xbe" * 3_000),
)
sized = st.one_of(
    st.binary(max_size=40), st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big"))
)
setting_pairs = st.tuples(
    st.integers(0, 7), st.sampled_from([0, 1, 100, 16_384, 2**24, 2**31 - 1, 2**31, 2**32 - 1])
)
any_frame = st.one_of(
    st.builds(frame, st.integers(0, 11), st.integers(0, 255), numbers, sized),
    st.builds(
        frame,
        st.sampled_from([http2.HEADERS, http2.CONT]),
        st.sampled_from([0, END_HEADERS, END_HEADERS | 1, 0x28, 0x2D]),
        numbers,
        header_blocks,
    ),
    st.builds(frame, st.just(http2.DATA), st.sampled_from([0, 1, 8, 9]), numbers, sized),
    st.builds(http2.request, st.integers(0, 60).map(lambda n: 2 * n + 1)),
    st.lists(setting_pairs, max_size=4).map(lambda pairs: http2.settings(*pairs)),
    st.builds(http2.window, numbers, st.sampled_from([0, 1, 70_000, 2**31 - 1])),
)
conversations = st.one_of(st.binary(max_size=200), st.lists(any_frame, max_size=25).map(b"".join))


class Owner:
    """Uses a connection as a server and a client of gRPC do, and keeps account."""

    def __init__(self, *, client: bool) -> None:
        self.connection = Connection(client=client, window=WINDOW)
        self.held: dict[int, int] = {}
        self.written = 0
        if client:
            for _ in range(3):
                self.held[self.connection.open_stream(HELD)] = 0

    def receive(self, data: bytes) -> None:
        was_closed = self.connection.closed
        events = self.connection.receive(data)
        assert not (was_closed and events)
        for event in events:
            if isinstance(event, HeadersReceived):
                size = sum(32 + len(name) + len(value) for name, value in event.headers)
                assert size <= MAX_HEADER_BYTES
                if event.stream_id not in self.held:
                    self.held[event.stream_id] = 0
                    self.connection.send_headers(event.stream_id, HELD)
                    self.connection.send_data(event.stream_id, b"x" * 300)
            elif isinstance(event, DataReceived):
                self.held[event.stream_id] += len(event.data)
                assert self.held[event.stream_id] <= WINDOW
            elif isinstance(event, StreamReset):
                del self.held[event.stream_id]
        open_now = [stream_id for stream_id in self.held if self.connection.is_open(stream_id)]
        assert len(open_now) <= MAX_STREAMS
        assert not (self.connection.closed and open_now)
        self.written += len(self.connection.output())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(at)]


@settings(UNHURRIED, max_examples=500)
@given(st.booleans(), st.booleans(), conversations, st.lists(st.integers(0, 10**4), max_size=4))
def test_no_input_raises_and_no_bound_is_passed(
    client: bool, greeted: bool, data: bytes, places: list[int]
) -> None:
    owner = Owner(client=client)
    greeting = b"" if client else http2.PREFACE
    if greeted:
        data = greeting + http2.settings() + data
    for part in cut(data, places):
        owner.receive(part)
    # Nothing is answered with more than itself and what the owner had to say.
    assert owner.written <= 1_000 + 4 * len(data) + 500 * len(owner.held)


@settings(UNHURRIED, max_examples=200)
@given(st.binary(max_size=400))
def test_no_header_block_raises(data: bytes) -> None:
    connection = http2.server()
    events = connection.receive(frame(http2.HEADERS, END_HEADERS, 1, data))
    assert connection.closed != bool(events)


@settings(UNHURRIED, max_examples=100)
@given(conversations, st.lists(st.integers(0, 10**4), min_size=1, max_size=9))
def test_the_same_input_cut_elsewhere_has_the_same_effect(data: bytes, places: list[int]) -> None:
    whole, parts = http2.server(), http2.server()
    events = whole.receive(data)
    assert [event for part in cut(data, places) for event in parts.receive(part)] == events
    assert parts.closed == whole.closed
    assert parts.output() == whole.output()


def test_a_flood_of_control_frames_leaves_nothing_behind_but_the_answers() -> None:
    connection = http2.server()
    flood = (
        frame(http2.PING, 0, 0, b"8" * 8)
        + frame(http2.SETTINGS)
        + http2.reset(1)
        + frame(http2.PRIORITY, 0, 1, b"12345")
        + frame(0x50, 0, 0, b"unknown")
    )
    for _ in range(1_000):
        assert connection.receive(flood) == []
    assert [seen.kind for seen in http2.sent(connection.output())] == [6, 4] * 1_000
    for stream_id in range(1, 4_001, 2):
        connection.receive(http2.request(stream_id) + http2.reset(stream_id))
        assert not connection.is_open(stream_id)
    assert connection.output() == b""


def test_a_header_block_of_endless_empty_parts_does_not_grow() -> None:
    connection = http2.server()
    connection.receive(frame(http2.HEADERS, 0, 1, http2.block()))
    for _ in range(10_000):
        assert connection.receive(frame(http2.CONT, 0, 1)) == []
    (event,) = connection.receive(frame(http2.CONT, END_HEADERS, 1))
    assert isinstance(event, HeadersReceived)
