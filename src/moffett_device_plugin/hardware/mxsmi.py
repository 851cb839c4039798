"""The output of `mx-smi select`: text to values. Pure.

    index, pci.bus_id, board
    3, 0:3a:00.0, 2

The first row names the columns, in any order, known or not; then a row per
device. Values may carry units (`20480 MiB`, `43 C`) or not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from .pci import sysfs_bus_id
from .types import SmiDevice, SmiReport, Telemetry

#: Columns asked for, dearest first: when mx-smi refuses a list, it is asked for
#: less from the end. `volatile` is the vendor's name for the voltage.
CORE_FIELDS = ("index", "pci.bus_id")
OPTIONAL_GROUPS = (
    ("serial", "uuid", "board"),
    ("name", "cores", "firmware_version", "mcu_version"),
    ("driver_version", "sola_version"),
    ("memory.total", "memory.reserved", "memory.used", "memory.free"),
    ("temperature",),
    ("power.draw", "power.limit"),
    ("utilization",),
    ("frequency", "volatile"),
    (
        "ecc.errors.corrected.volatile.device_memory",
        "ecc.errors.uncorrected.volatile.device_memory",
        "ecc.errors.corrected.aggregate.device_memory",
        "ecc.errors.uncorrected.aggregate.device_memory",
    ),
)
ALL_FIELDS = CORE_FIELDS + tuple(field for group in OPTIONAL_GROUPS for field in group)

_TELEMETRY: dict[str, tuple[str, type[int] | type[float]]] = {
    "memory.total": ("memory_total_mib", int),
    "memory.reserved": ("memory_reserved_mib", int),
    "memory.used": ("memory_used_mib", int),
    "memory.free": ("memory_free_mib", int),
    "utilization": ("utilization_percent", float),
    "temperature": ("temperature_celsius", float),
    "power.draw": ("power_draw_watts", float),
    "power.limit": ("power_limit_watts", float),
    "frequency": ("frequency_mhz", float),
    "volatile": ("voltage_mv", float),
    **{
        f"ecc.errors.{kind}.{span}.device_memory": (f"ecc_{kind}_{span}", int)
        for kind in ("corrected", "uncorrected")
        for span in ("volatile", "aggregate")
    },
}
#: To our base units, for the units that differ from them.
_SCALE = {"gib": 1024.0, "kib": 1 / 1024, "mw": 0.001, "ghz": 1000.0, "v": 1000.0}
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)\s*([^\s\d].*)?")
_NOTHING = frozenset({"", "n/a", "[n/a]", "na", "none", "unknown", "[not supported]", "-", "--"})
_MAX_TEXT = 128
#: Nothing that is measured comes near it; what is beyond is no measurement.
_MAX_NUMBER = 1e15


class GarbageError(Exception):
    """The text is no table of devices; the message shows how it begins."""


def parse_select(text: str) -> SmiReport:
    """Raises GarbageError unless a header with `pci.bus_id` is there.

    Lines before the header (warnings of libraries, say) are passed over. A row
    with a wrong number of columns or no bus id is counted in `bad_rows`.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        columns = [_column(cell) for cell in line.split(",")]
        if "pci.bus_id" in columns:
            return _parse_rows(columns, lines[number + 1 :])
    start = " ".join(text.split())[:80]
    raise GarbageError(f"no table in its output: {start!r}" if start else "it printed nothing")


def _column(cell: str) -> str:
    """A column's name, lower case, without a unit in brackets: `memory.total [MiB]`."""
    # No pattern: one that begins with spaces takes hours for a megabyte of them.
    return cell.partition("[")[0].partition("(")[0].strip().lower()


def _parse_rows(columns: list[str], lines: list[str]) -> SmiReport:
    devices: dict[str, SmiDevice] = {}
    versions: dict[str, str] = {}
    bad = 0
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        row = dict(zip(columns, cells, strict=False))
        bus_id = sysfs_bus_id(row.get("pci.bus_id", ""))
        if len(cells) != len(columns) or bus_id is None:
            bad += 1
            continue
        devices.setdefault(bus_id, _device(bus_id, row))
        for name in ("driver_version", "sola_version"):
            if (value := text_of(row.get(name))) is not None:
                versions.setdefault(name, value)
    return SmiReport(
        devices=tuple(devices[bus_id] for bus_id in sorted(devices)),
        driver_version=versions.get("driver_version"),
        sola_version=versions.get("sola_version"),
        bad_rows=bad,
    )


def _device(bus_id: str, row: dict[str, str]) -> SmiDevice:
    measured: dict[str, Any] = {
        name: kind(number)
        for column, (name, kind) in _TELEMETRY.items()
        if (number := number_of(row.get(column))) is not None
    }
    index, cores = number_of(row.get("index")), number_of(row.get("cores"))
    return SmiDevice(
        bus_id=bus_id,
        index=None if index is None or index < 0 else int(index),
        product=product_of(text_of(row.get("name"))),
        serial=text_of(row.get("serial")),
        uuid=text_of(row.get("uuid")),
        board=text_of(row.get("board")),
        cores=None if cores is None else int(cores),
        firmware_version=text_of(row.get("firmware_version")),
        mcu_version=text_of(row.get("mcu_version")),
        telemetry=Telemetry(**measured),
    )


@lru_cache(maxsize=512)  # most cells say what they said at the last run
def number_of(text: str | None) -> float | None:
    """`20480 MiB`, `43 C`, `43` and `20 GiB` in base units; None for no number.

    >>> number_of("20 GiB")
    20480.0
    """
    match = _NUMBER.fullmatch((text or "").strip())
    if match is None:
        return None
    unit = (match[2] or "").strip().lower()
    number = float(match[1]) * _SCALE.get(unit, 1.0)
    return number if abs(number) <= _MAX_NUMBER else None


@lru_cache(maxsize=512)
def text_of(text: str | None) -> str | None:
    """Printable text of a bounded length; None for `N/A` and its like."""
    if text is None or text.strip().lower() in _NOTHING:
        return None
    return "".join(c if c.isprintable() else "?" for c in text.strip())[:_MAX_TEXT]


def product_of(name: str | None) -> str | None:
    """`01S30-00A` is what mx-smi calls an S30; other names are kept as they are."""
    match = re.fullmatch(r"\d\d(S\d+)-.*", name or "")
    return match[1] if match else name


def version_of(text: str | None) -> tuple[int, int, int] | None:
    """The leading numbers of a version, `3.5` being 3.5.0; None where there are none.

    >>> version_of("3.5.3-rc1")
    (3, 5, 3)
    """
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", (text or "").strip())
    if match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0)
