"""What the telemetry process and its clients send each other. Pure.

A connection has one question and one answer, each a line of JSON; then it ends. So either
side may start first, restart, or be of another version. Keys that a reader does not know
are ignored. `protocol` is raised when an older reader would misunderstand an answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ... import __version__
from ..mxsmi import MAX_NUMBER, TEMPERATURES, text_of
from ..pci import sysfs_bus_id
from ..types import SmiDevice, SmiReport, Telemetry

PROTOCOL = 1
MAX_QUESTION = 4096
MAX_ANSWER = 1024 * 1024
#: More devices than mx-smi has indexes for, in case that changes.
MAX_DEVICES = 256
_MAX_NODES = 64
_MAX_FIELDS = 64
_FLOATS = frozenset(
    {"utilization_percent", "temperature_celsius", "power_draw_watts", "power_limit_watts",
     "frequency_mhz", "voltage_mv"}
)  # fmt: skip
_TELEMETRY = tuple(field.name for field in fields(Telemetry))
_TEXTS = ("product", "serial", "uuid", "board", "firmware_version", "mcu_version")


class ProtocolError(Exception):
    """The other side's message is none of this protocol; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one run of mx-smi: a report, an error, or neither where there is no
    mx-smi. `nodes` says in a line each which device nodes of the container are of no use.
    `age` is the time in seconds since the run began. `version` is the sender's."""

    report: SmiReport | None = None
    error: str | None = None
    nodes: tuple[str, ...] = ()
    age: float = 0.0
    version: str = __version__


def encode_question() -> bytes:
    return _line({"protocol": PROTOCOL, "version": __version__})


def check_question(line: bytes) -> None:
    """Raises ProtocolError. A question of a later protocol is answered all the same:
    whoever asks judges the answer."""
    protocol = _object(line).get("protocol")
    if not isinstance(protocol, int) or isinstance(protocol, bool) or protocol < 1:
        raise ProtocolError("the question names no protocol")


def encode_answer(answer: Answer) -> bytes:
    message: dict[str, Any] = {
        "protocol": PROTOCOL,
        "version": answer.version,
        "age_seconds": round(answer.age, 3),
        "error": answer.error,
        "nodes": list(answer.nodes[:_MAX_NODES]),
        "report": None,
    }
    if (report := answer.report) is not None:
        message["report"] = {
            "devices": [asdict(device) for device in report.devices[:MAX_DEVICES]],
            "driver_version": report.driver_version,
            "sola_version": report.sola_version,
            "bad_rows": report.bad_rows,
            "complete": report.complete and len(report.devices) <= MAX_DEVICES,
            "refused": list(report.refused),
        }
    return _line(message)


def decode_answer(line: bytes) -> Answer:
    """Raises ProtocolError. Values that cannot be what they are for become unknown."""
    message = _object(line)
    protocol = message.get("protocol")
    version = text_of(_text(message.get("version"))) or "unknown"
    if protocol != PROTOCOL:
        raise ProtocolError(
            f"the telemetry process (version {version}) has protocol {protocol!r:.20},"
            f" the plugin {PROTOCOL}: run both from one image"
        )
    age = _number(message.get("age_seconds"))
    if age is None or age < 0:
        raise ProtocolError("the answer does not say how old it is")
    report = message.get("report")
    nodes = message.get("nodes")
    error = _text(message.get("error"))
    return Answer(
        report=_report(report) if isinstance(report, dict) else None,
        error=None if error is None else _clean(error) or "unknown error",
        nodes=_texts(nodes, _MAX_NODES, 200),
        age=age,
        version=version,
    )


def _report(message: Mapping[str, Any]) -> SmiReport:
    rows = message.get("devices")
    if not isinstance(rows, list):
        raise ProtocolError("the report has no list of devices")
    devices: dict[str, SmiDevice] = {}
    bad = max(0, int(_number(message.get("bad_rows")) or 0))
    whole = message.get("complete") is True and len(rows) <= MAX_DEVICES
    for row in rows[:MAX_DEVICES]:
        device = _device(row) if isinstance(row, dict) else None
        if device is None or device.bus_id in devices:
            bad, whole = bad + 1, False
        else:
            devices[device.bus_id] = device
    return SmiReport(
        devices=tuple(devices[bus_id] for bus_id in sorted(devices)),
        driver_version=text_of(_text(message.get("driver_version"))),
        sola_version=text_of(_text(message.get("sola_version"))),
        bad_rows=bad,
        complete=whole,
        refused=_texts(message.get("refused"), _MAX_FIELDS, 64),
    )


def _device(row: Mapping[str, Any]) -> SmiDevice | None:
    bus_id = sysfs_bus_id(_text(row.get("bus_id")) or "")
    if bus_id is None:
        return None
    readings = row.get("telemetry")
    texts = {name: text_of(_text(row.get(name))) for name in _TEXTS}
    return SmiDevice(
        bus_id=bus_id,
        index=_count(row.get("index")),
        cores=_count(row.get("cores")),
        telemetry=_telemetry(readings if isinstance(readings, dict) else {}),
        **texts,
    )


def _telemetry(readings: Mapping[str, Any]) -> Telemetry:
    values: dict[str, Any] = {}
    for name in _TELEMETRY:
        number = _number(readings.get(name))
        if number is None:
            continue
        if name not in _FLOATS and number < 0:
            continue
        if name == "temperature_celsius" and not TEMPERATURES[0] <= number <= TEMPERATURES[1]:
            continue
        values[name] = number if name in _FLOATS else int(number)
    return Telemetry(**values)


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError(f"no message: {_clean(repr(line[:40]))}") from None
    if not isinstance(message, dict):
        raise ProtocolError("the message is no object")
    return message


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(value) if abs(value) <= MAX_NUMBER else None


def _count(value: object) -> int | None:
    number = _number(value)
    return None if number is None or number < 0 else int(number)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object, most: int, length: int) -> tuple[str, ...]:
    items = value[:most] if isinstance(value, list) else []
    return tuple(_clean(item, length) for item in items if isinstance(item, str))


def _clean(text: str, length: int = 300) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:length])
