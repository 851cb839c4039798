"""One HTTP/2 connection as a state machine: bytes in, events and bytes out. No I/O.

Pass received bytes to `receive`, handle the events that it returns, and write the bytes of
`output`. One class has both roles: they differ in the preface and in the stream numbers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hpack import Decoder, HPACKError, OversizedHeaderListError

from . import frames
from .frames import ErrorCode, Flag, Frame, Kind, ProtocolError, Setting

Headers = tuple[tuple[bytes, bytes], ...]

#: Limits for each connection, which bound its memory. A device plugin has one kubelet.
MAX_STREAMS = 32
MAX_HEADER_BYTES = 16_384
#: Default receive window of a stream, in bytes: the maximum of unread data.
RECEIVE_WINDOW = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    stream_id: int
    headers: Headers
    ended: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    stream_id: int
    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer sent GOAWAY: it handles no stream after `last_stream_id`."""

    last_stream_id: int
    code: int


Event = HeadersReceived | DataReceived | StreamReset | GoneAway


@dataclass(slots=True)
class _Stream:
    window: int  # bytes that the peer accepts
    unsent: deque[bytes | memoryview] = field(default_factory=deque)
    trailers: Headers | None = None
    end_after_unsent: bool = False
    local_ended: bool = False
    remote_ended: bool = False
    received: int = 0  # bytes not yet returned to the peer's window


class Connection:
    """One end of an HTTP/2 connection: the client's if `client`, else the server's.

    `window`: bytes that the peer may send on one stream before `consumed` is called.
    """

    def __init__(self, *, client: bool, window: int = RECEIVE_WINDOW) -> None:
        self._client = client
        self._grant = window
        self._preface_missing = not client
        self._settings_missing = True
        self._in = bytearray()
        self._out = bytearray()
        # The peer's HPACK state; the default table size is 4096.
        self._decoder = Decoder(max_header_list_size=MAX_HEADER_BYTES)
        self._streams: dict[int, _Stream] = {}
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._frame_size = frames.DEFAULT_FRAME_SIZE
        self._last_peer_stream = 0
        self._next_stream = 1
        self._block: tuple[Frame, bytearray] | None = None  # HEADERS until END_HEADERS
        self._table_update = b""  # prefix of the next header block
        self._received = 0
        self.closed = False
        if client:
            self._out += frames.PREFACE
        limits = {Setting.INITIAL_WINDOW_SIZE: window}
        if client:
            limits[Setting.ENABLE_PUSH] = 0
        else:
            limits[Setting.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
            limits[Setting.MAX_HEADER_LIST_SIZE] = MAX_HEADER_BYTES
        self._out += frames.settings(limits)
        self._out += frames.window_update(0, window)

    # -- public --------------------------------------------------------------

    def output(self) -> bytes:
        """The bytes to write now; may be empty."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> list[Event]:
        """Handles bytes from the peer. After a protocol violation the connection is
        `closed`, `output` has a GOAWAY, and every open stream is reported as reset."""
        if self.closed:
            return []
        self._in += data
        events: list[Event] = []
        try:
            if self._preface_missing and not self._take_preface():
                return events
            while (frame := frames.take(self._in)) is not None:
                self._dispatch(frame, events)
        except ProtocolError as error:
            self.close(error.code, str(error))
            events += [StreamReset(stream_id, error.code) for stream_id in self._streams]
            self._streams.clear()
        return events

    def open_stream(self, headers: Headers) -> int:
        """Client: starts a request. Returns the stream ID for `send_data`."""
        stream_id = self._next_stream
        self._next_stream += 2
        self._streams[stream_id] = _Stream(self._initial_window)
        self._put_headers(stream_id, headers, ended=False)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, *, ended: bool = False) -> None:
        """Response headers; with `ended` trailers, which follow the unsent data."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_ended:
            return
        if ended and stream.unsent:
            stream.trailers = headers
            return
        self._put_headers(stream_id, headers, ended=ended)
        if ended:
            self._end_local(stream_id, stream)

    def send_data(self, stream_id: int, data: bytes, *, ended: bool = False) -> None:
        """Sends as much as the peer's windows allow; the rest follows with its updates."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_ended:
            return
        stream.unsent.append(data)
        stream.end_after_unsent = ended
        self._flush(stream_id, stream)

    def is_open(self, stream_id: int) -> bool:
        """False once both sides have ended the stream, or one has reset it."""
        return stream_id in self._streams

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes that wait for the peer's window; 0 for a stream that has ended."""
        stream = self._streams.get(stream_id)
        return sum(map(len, stream.unsent)) if stream else 0

    def reset(self, stream_id: int, code: ErrorCode = ErrorCode.CANCEL) -> None:
        if self._streams.pop(stream_id, None) is not None:
            self._put_reset(stream_id, code)

    def refuse_rest(self, stream_id: int) -> None:
        """Resets the stream if the peer is still sending, without an error."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.remote_ended:
            self.reset(stream_id, ErrorCode.NO_ERROR)

    def consumed(self, stream_id: int) -> None:
        """Returns the window of the data received on this stream to the peer."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.received and not stream.remote_ended:
            self._out += frames.window_update(stream_id, stream.received)
            stream.received = 0

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        if not self.closed:
            payload = self._last_peer_stream.to_bytes(4, "big") + code.to_bytes(4, "big")
            self._out += frames.encode(Kind.GOAWAY, Flag.NONE, 0, payload + text.encode()[:200])
            self.closed = True

    # -- sending --------------------------------------------------------------

    def _put_headers(self, stream_id: int, headers: Headers, *, ended: bool) -> None:
        block = self._table_update + frames.header_block(headers)
        self._table_update = b""
        flags = Flag.END_STREAM if ended else Flag.NONE
        kind, first = Kind.HEADERS, True
        while first or block:
            part, block = block[: self._frame_size], block[self._frame_size :]
            last = Flag.NONE if block else Flag.END_HEADERS
            self._out += frames.encode(kind, flags | last, stream_id, part)
            kind, flags, first = Kind.CONTINUATION, Flag.NONE, False

    def _flush(self, stream_id: int, stream: _Stream) -> None:
        while stream.unsent:
            data = stream.unsent[0]
            size = min(len(data), stream.window, self._window, self._frame_size)
            if size < len(data) and size <= 0:
                return
            last = size == len(data) and len(stream.unsent) == 1
            ended = last and stream.end_after_unsent
            flags = Flag.END_STREAM if ended else Flag.NONE
            self._out += frames.encode(Kind.DATA, flags, stream_id, data[:size])
            stream.window -= size
            self._window -= size
            if size == len(data):
                stream.unsent.popleft()
            else:
                stream.unsent[0] = memoryview(data)[size:]
            if ended:
                self._end_local(stream_id, stream)
        if stream.trailers is not None:
            self._put_headers(stream_id, stream.trailers, ended=True)
            self._end_local(stream_id, stream)

    def _end_local(self, stream_id: int, stream: _Stream) -> None:
        stream.local_ended = True
        if stream.remote_ended:
            self._streams.pop(stream_id, None)

    def _put_reset(self, stream_id: int, code: ErrorCode) -> None:
        self._out += frames.encode(Kind.RST_STREAM, Flag.NONE, stream_id, code.to_bytes(4, "big"))

    # -- receiving ------------------------------------------------------------

    def _take_preface(self) -> bool:
        have = bytes(self._in[: len(frames.PREFACE)])
        if have != frames.PREFACE[: len(have)]:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        if len(have) < len(frames.PREFACE):
            return False
        del self._in[: len(frames.PREFACE)]
        self._preface_missing = False
        return True

    def _dispatch(self, frame: Frame, events: list[Event]) -> None:
        if self._settings_missing:
            if frame.kind != Kind.SETTINGS:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._settings_missing = False
        if self._block is not None and (
            frame.kind != Kind.CONTINUATION or frame.stream_id != self._block[0].stream_id
        ):
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a header block was not continued")
        match frame.kind:
            case Kind.DATA:
                self._on_data(frame, events)
            case Kind.HEADERS:
                self._on_header_part(frame, bytearray(frames.unpadded(frame)), frame.flags, events)
            case Kind.CONTINUATION:
                if self._block is None:
                    raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
                first, block = self._block
                block += frame.payload
                self._on_header_part(first, block, frame.flags, events)
            case Kind.SETTINGS:
                self._on_settings(frame)
            case Kind.PING:
                if len(frame.payload) != 8:
                    raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
                if not frame.flags & Flag.ACK:
                    self._out += frames.encode(Kind.PING, Flag.ACK, 0, frame.payload)
            case Kind.WINDOW_UPDATE:
                self._on_window_update(frame, events)
            case Kind.RST_STREAM:
                if len(frame.payload) != 4:
                    raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
                if self._streams.pop(frame.stream_id, None) is not None:
                    code = int.from_bytes(frame.payload, "big")
                    events.append(StreamReset(frame.stream_id, code))
            case Kind.GOAWAY:
                if len(frame.payload) < 8:
                    raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY too short")
                last = int.from_bytes(frame.payload[:4], "big") & 0x7FFF_FFFF
                events.append(GoneAway(last, int.from_bytes(frame.payload[4:8], "big")))
            case Kind.PUSH_PROMISE:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "push is not allowed")
            case _:  # PRIORITY and unknown types are ignored
                pass

    def _on_data(self, frame: Frame, events: list[Event]) -> None:
        self._received += len(frame.payload)
        # The window of the connection is returned at once: memory is bounded by the
        # windows of the streams and their number.
        if self._received >= self._grant // 2:
            self._out += frames.window_update(0, self._received)
            self._received = 0
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            if frame.stream_id % 2 == 0 or frame.stream_id > self._highest_stream():
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "DATA on a stream never opened")
            return  # sent before the peer received RST_STREAM
        if stream.remote_ended:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, "DATA after the end of the stream")
        stream.received += len(frame.payload)
        if stream.received > self._grant:
            raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than was granted")
        ended = bool(frame.flags & Flag.END_STREAM)
        events.append(DataReceived(frame.stream_id, frames.unpadded(frame), ended))
        if ended:
            self._end_remote(frame.stream_id, stream)

    def _on_header_part(
        self, first: Frame, block: bytearray, flags: int, events: list[Event]
    ) -> None:
        if len(block) > MAX_HEADER_BYTES:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "headers too large")
        if not flags & Flag.END_HEADERS:
            self._block = (first, block)
            return
        self._block = None
        # Every block must be decoded, also of ignored streams: HPACK has state.
        try:
            decoded = self._decoder.decode(bytes(block), raw=True)
        except OversizedHeaderListError as error:
            raise ProtocolError(ErrorCode.ENHANCE_YOUR_CALM, "headers too large") from error
        except (HPACKError, IndexError, ValueError) as error:
            raise ProtocolError(ErrorCode.COMPRESSION_ERROR, "undecodable headers") from error
        stream_id = first.stream_id
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._peer_opens(stream_id)
            if stream is None:
                return
        elif stream.remote_ended:
            raise ProtocolError(ErrorCode.STREAM_CLOSED, "headers after the end of the stream")
        ended = bool(first.flags & Flag.END_STREAM)
        headers = tuple((bytes(item[0]), bytes(item[1])) for item in decoded)
        events.append(HeadersReceived(stream_id, headers, ended))
        if ended:
            self._end_remote(stream_id, stream)

    def _peer_opens(self, stream_id: int) -> _Stream | None:
        if stream_id % 2 == 0:
            raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "a client's stream has an odd number")
        if self._client:
            if stream_id >= self._next_stream:
                raise ProtocolError(ErrorCode.PROTOCOL_ERROR, "headers on a stream never opened")
            return None  # sent before the peer received RST_STREAM
        if stream_id <= self._last_peer_stream:
            return None  # trailers sent before the peer received RST_STREAM
        self._last_peer_stream = stream_id
        if len(self._streams) >= MAX_STREAMS:
            self._put_reset(stream_id, ErrorCode.REFUSED_STREAM)
            return None
        stream = self._streams[stream_id] = _Stream(self._initial_window)
        return stream

    def _on_settings(self, frame: Frame) -> None:
        if frame.flags & Flag.ACK:
            return
        for key, value in frames.parse_settings(frame.payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
                for stream in self._streams.values():
                    stream.window += value - self._initial_window
                    if stream.window > frames.MAX_WINDOW:
                        raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
                self._initial_window = value
            elif key == Setting.HEADER_TABLE_SIZE:
                self._table_update = frames.NO_TABLE
            elif key == Setting.MAX_FRAME_SIZE:
                # Limited, so that one stream does not delay the others for long.
                self._frame_size = min(max(value, frames.DEFAULT_FRAME_SIZE), 65_536)
        self._out += frames.encode(Kind.SETTINGS, Flag.ACK, 0)
        self._flush_all()

    def _on_window_update(self, frame: Frame, events: list[Event]) -> None:
        if len(frame.payload) != 4:
            raise ProtocolError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        increment = int.from_bytes(frame.payload, "big") & 0x7FFF_FFFF
        if frame.stream_id == 0:
            self._window += increment
            if not increment or self._window > frames.MAX_WINDOW:
                raise ProtocolError(ErrorCode.FLOW_CONTROL_ERROR, "a wrong window update")
            self._flush_all()
            return
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            return
        stream.window += increment
        if not increment or stream.window > frames.MAX_WINDOW:
            self.reset(frame.stream_id, ErrorCode.FLOW_CONTROL_ERROR)
            events.append(StreamReset(frame.stream_id, ErrorCode.FLOW_CONTROL_ERROR))
            return
        self._flush(frame.stream_id, stream)

    def _flush_all(self) -> None:
        for stream_id, stream in list(self._streams.items()):
            if stream.unsent:
                self._flush(stream_id, stream)

    def _end_remote(self, stream_id: int, stream: _Stream) -> None:
        stream.remote_ended = True
        if stream.local_ended:
            self._streams.pop(stream_id, None)

    def _highest_stream(self) -> int:
        return max(self._last_peer_stream, self._next_stream - 2)
