from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moffett_device_plugin.grpc import messages
from moffett_device_plugin.grpc.connection import Headers
from moffett_device_plugin.grpc.messages import Code, StatusError


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 20))
def test_messages_survive_however_they_are_cut(sent: list[bytes], size: int) -> None:
    wire = b"".join(map(messages.frame, sent))
    buffer, taken = bytearray(), []
    for at in range(0, len(wire), size):
        buffer += wire[at : at + size]
        while (message := messages.take(buffer, 50)) is not None:
            taken.append(message)
    assert taken == sent
    assert not buffer


def test_the_wire_form_is_that_of_the_specification() -> None:
    assert messages.frame(b"abc") == b"\x00\x00\x00\x00\x03abc"


def test_a_compressed_message_is_refused_as_unimplemented() -> None:
    with pytest.raises(StatusError) as caught:
        messages.take(bytearray(b"\x01\x00\x00\x00\x00"), 10)
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize("length", [11, 2**32 - 1])
def test_a_message_too_large_is_refused_before_it_arrives(length: int) -> None:
    with pytest.raises(StatusError, match=f"{length} bytes; the limit is 10") as caught:
        messages.take(bytearray(b"\0" + length.to_bytes(4, "big")), 10)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


def test_a_message_of_just_the_limit_is_taken() -> None:
    assert messages.take(bytearray(messages.frame(b"x" * 10)), 10) == b"x" * 10


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 30))
def test_any_bytes_are_a_message_or_wait_or_are_refused(data: bytes, limit: int) -> None:
    buffer = bytearray(data)
    try:
        message = messages.take(buffer, limit)
    except StatusError as error:
        assert error.code in {Code.UNIMPLEMENTED, Code.RESOURCE_EXHAUSTED}
        return
    assert bytes(buffer) == data if message is None else len(message) <= limit


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("plain, 1 of 2", b"plain, 1 of 2"),
        ("100%", b"100%25"),
        ("a\nb\tc\x7f", b"a%0Ab%09c%7F"),
        ("für 芯片", b"f%C3%BCr %E8%8A%AF%E7%89%87"),
        ("lone \udc80", b"lone ?"),
        ("", b""),
    ],
)
def test_text_is_percent_encoded_as_the_specification_says(text: str, wire: bytes) -> None:
    assert messages.escape(text) == wire


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_comes_back(text: str) -> None:
    headers = messages.trailers(Code.NOT_FOUND, text)
    assert all(0x20 <= byte <= 0x7E for byte in dict(headers)[b"grpc-message"])
    assert messages.status_of(headers) == (Code.NOT_FOUND, text)


@pytest.mark.parametrize("text", ["x" * 5000, "芯" * 5000, "x" + "🂡" * 5000])
def test_a_long_text_is_cut_between_two_characters_and_fits_into_trailers(text: str) -> None:
    wire = messages.escape(text)
    assert len(wire) <= 3 * messages.MAX_TEXT < 8 * 1024
    kept = unquote_to_bytes(wire).decode()
    assert text.startswith(kept)
    assert len(kept.encode()) > messages.MAX_TEXT - 4


def test_success_has_no_text() -> None:
    assert messages.trailers(Code.OK, "ignored") == ((b"grpc-status", b"0"),)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (((b"grpc-status", b"0"),), (Code.OK, "")),
        (((b"grpc-status", b"5"), (b"grpc-message", b"no%20such")), (Code.NOT_FOUND, "no such")),
        (((b"grpc-status", b"16"),), (Code.UNKNOWN, "")),
        (((b"grpc-status", b""),), (Code.UNKNOWN, "")),
        (((b"grpc-status", b"\xff"),), (Code.UNKNOWN, "")),
        (((b"grpc-status", b"9" * 5000),), (Code.UNKNOWN, "")),
        (((b"grpc-status", b"2"), (b"grpc-message", b"50%zz%")), (Code.UNKNOWN, "50%zz%")),
        (((b"grpc-status", b"2"), (b"grpc-message", b"%ff\xff")), (Code.UNKNOWN, "\ufffd\ufffd")),
        (((b":status", b"200"),), None),
        ((), None),
    ],
)
def test_a_status_is_read_from_what_any_server_may_send(
    headers: Headers, status: tuple[Code, str] | None
) -> None:
    assert messages.status_of(headers) == status


@settings(deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=60))
def test_no_trailers_raise(status: bytes, text: bytes) -> None:
    read = messages.status_of(((b"grpc-status", status), (b"grpc-message", text)))
    assert read is not None
