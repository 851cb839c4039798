"""What the telemetry process and the plugin send each other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from moffett_device_plugin.hardware.telemetry.protocol import (
    PROTOCOL,
    Answer,
    ProtocolError,
    check_question,
    decode_answer,
    encode_answer,
    encode_question,
)
from moffett_device_plugin.hardware.types import SmiDevice, SmiReport, Telemetry

DEVICE = SmiDevice(
    "0000:36:00.0", 0, "S30", "2023", "01-0216", "1", 4, "1.0.14", "4X08",
    Telemetry(20480, 4484, 5, 15991, 12.5, 43.0, 2.0, 83.0, 700.0, 930.0, 0, 1, 2, 3),
)  # fmt: skip
REPORT = SmiReport((DEVICE,), "3.5.2", "3.5.3", 1, False, ("uuid",))


def altered(**changes: Any) -> bytes:
    message = json.loads(encode_answer(Answer(REPORT)))
    for key, value in changes.items():
        within, _, name = key.rpartition("__")
        target = {"": message, "report": message["report"]}.get(within)
        if target is None:
            target = message["report"]["devices"][0]
            target = target["telemetry"] if within == "reading" else target
        target[name] = value
    return json.dumps(message).encode()


def test_a_report_arrives_as_it_was_sent() -> None:
    answer = Answer(REPORT, None, ("/dev/spu0: no",), 0.25, "0.3.0")
    assert decode_answer(encode_answer(answer)) == answer
    assert decode_answer(encode_answer(Answer(error="killed"))).error == "killed"
    assert decode_answer(encode_answer(Answer())).report is None


def test_a_later_version_may_add_keys() -> None:
    line = altered(more=1, report__more=[], device__more={}, reading__fan_rpm=3)
    assert decode_answer(line).report == REPORT


def test_another_protocol_is_refused_with_both_versions() -> None:
    with pytest.raises(ProtocolError, match=rf"version 9.9.*protocol 2.*plugin {PROTOCOL}"):
        decode_answer(altered(protocol=2, version="9.9"))
    check_question(b'{"protocol": 2}\n')  # whoever asks judges the answer


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"{}\n", b'{"protocol": true}\n', b'{"protocol": "1"}\n', b"[" * 4000]
)
def test_nonsense_is_no_message(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_question(line)
    with pytest.raises(ProtocolError):
        decode_answer(line)
    check_question(encode_question())


@pytest.mark.parametrize("age", [None, -1, "1", float("nan"), True])
def test_readings_without_an_age_are_refused(age: object) -> None:
    with pytest.raises(ProtocolError):
        decode_answer(altered(age_seconds=age))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature_celsius", 9e9), ("temperature_celsius", "97"), ("temperature_celsius", True),
        ("ecc_uncorrected_volatile", -1), ("ecc_uncorrected_volatile", 1e300),
        ("memory_used_mib", [1]), ("power_draw_watts", float("inf")),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_one_is_not_known(name: str, value: object) -> None:
    report = decode_answer(altered(**{f"reading__{name}": value})).report
    assert report is not None
    assert report.devices[0].telemetry == replace(DEVICE.telemetry, **{name: None})


def test_names_are_short_and_printable() -> None:
    report = decode_answer(altered(device__serial="\x1b[31m" + "9" * 5000)).report
    assert report is not None
    serial = report.devices[0].serial
    assert serial is not None
    assert serial.isprintable()
    assert len(serial) <= 200


@pytest.mark.parametrize("rows", [[1], [{}], [{"bus_id": "../.."}]])
def test_with_a_row_that_cannot_be_read_nobody_is_not_listed(rows: list[Any]) -> None:
    report = decode_answer(altered(report__devices=rows, report__complete=True)).report
    assert report is not None
    assert not report.complete
    assert not report.devices


def test_more_devices_than_there_can_be_are_cut_off_and_said_so() -> None:
    devices = tuple(replace(DEVICE, bus_id=f"{n:04x}:36:00.0") for n in range(300))
    report = decode_answer(encode_answer(Answer(SmiReport(devices)))).report
    assert report is not None
    assert len(report.devices) == 256
    assert not report.complete
