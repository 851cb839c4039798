"""What mx-smi prints: text to values. Pure.

    index, pci.bus_id, board
    3, 0:3a:00.0, 2

The first row of `select` names the columns, in any order, known or not; then a row per
device. Values may carry units (`20480 MiB`, `43 C`) or not. The format is not
promised, so what can be read is read: a value counts only where the text leaves one way to
read it, and a device that has no row is known to have none only where all was understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .pci import sysfs_bus_id
from .types import SmiDevice, SmiReport, Telemetry

#: Columns asked for, the most important first: when mx-smi refuses a list, it is asked for
#: less from the end. `volatile` is the vendor's name for the voltage.
CORE_FIELDS = ("index", "pci.bus_id")
OPTIONAL_GROUPS = (
    ("count",),
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
#: All columns that mx-smi has.
_KNOWN_FIELDS = frozenset(ALL_FIELDS) | {
    "timestamp", "pci.bus", "pci.device", "pci.domain", "pci.device_id", "pci.sub_device_id"
}  # fmt: skip

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
#: The units of each measured column, and what one of them is in ours.
_UNITS: Mapping[str, Mapping[str, float]] = {
    **{
        f"memory.{part}": {"mib": 1.0, "mb": 1.0, "gib": 1024.0, "gb": 1024.0, "kib": 1 / 1024}
        for part in ("total", "reserved", "used", "free")
    },
    "utilization": {"%": 1.0},
    "temperature": {"c": 1.0, "\u00b0c": 1.0},
    "power.draw": {"w": 1.0, "mw": 0.001},
    "power.limit": {"w": 1.0, "mw": 0.001},
    "frequency": {"mhz": 1.0, "ghz": 1000.0},
    "volatile": {"mv": 1.0, "v": 1000.0},
}
#: Beyond these it is no temperature of a chip, in C.
TEMPERATURES = (-60.0, 250.0)
_NUMBER = re.compile(r"(-?\d+(?:,\d{3})*(?:\.\d+)?|-?\d+,\d{1,2})(?!\d)\s*([^\s\d.,].*)?", re.ASCII)
_LIST = re.compile(r"(?:\d{1,3}(?:\.\d+)?\s*%[\s,;/|]*){2,}", re.ASCII)
#: Words in the place of a value.
_NO_VALUE = re.compile(
    r"|\[.*\]|n\.?/?a\.?|-+|none|null|nil|nan|unknown.*|not .*|.*\berr(or)?\b.*"
    r"|.*\bfail(ed|ure)?\b.*|invalid.*|unavailable|unsupported|time(d )?out|.*\blost\b.*"
    r"|0{4,}|f{8,}|0x(0{4,}|f{8,})",
    re.IGNORECASE,
)
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_BUS_ID = re.compile(
    r"(?<![0-9a-z:.])(?:[0-9a-f]{1,8}:)?[0-9a-f]{1,2}:[0-9a-f]{1,2}\.[0-7](?![0-9a-z:.])",
    re.IGNORECASE,
)
_SEPARATORS = (",", ";", "|", "\t")
_MAX_TEXT = 128
#: Nothing that is measured comes near it; what is beyond is no measurement.
MAX_NUMBER = 1e15
#: Rows, and cells in one, that no node has.
_MAX_ROWS, _MAX_CELLS = 4096, 256
#: Parts that one quoted cell can have.
_MAX_JOINED = 16

Row = dict[str, str]


class GarbageError(Exception):
    """The text is no table of devices; the message shows how it begins."""


def parse_select(text: str) -> SmiReport:
    """Raises GarbageError unless a header with `pci.bus_id` is there.

    Lines before the header (warnings of libraries, say) are passed over. A row that
    cannot be read, or not whole, is counted in `bad_rows`; the answer is then not
    `complete`, nor is one that breaks off in the middle of a line.
    """
    lines, whole = _lines(text)
    table = _Table()
    for number, line in enumerate(lines):
        cut = not whole and number == len(lines) - 1
        table.read(line, cut=cut)
    if table.columns is None:
        raise GarbageError(_beginning(text))
    return table.report(complete=whole)


def _lines(text: str) -> tuple[list[str], bool]:
    """The lines without colours and control characters, and whether the last one ends."""
    plain = _ESCAPES.sub("", text).replace("\ufeff", "").replace("\0", "")
    # str.splitlines would split at characters that a cell may have.
    lines = plain.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ends = not lines[-1].strip()
    return [line for line in lines if line.strip()], ends


def _beginning(text: str) -> str:
    start = " ".join(text.split())[:80]
    return f"no table in its output: {start!r}" if start else "it printed nothing"


class _Table:
    """The rows under the header that was seen last."""

    def __init__(self) -> None:
        self.columns: list[str] | None = None
        self._separator = ","
        self._rows: dict[str, Row] = {}
        self._count: set[int] = set()
        self._bad = 0  # not understood, or not whole
        self._nameless = 0  # of these, without a bus ID

    def read(self, line: str, *, cut: bool) -> None:
        """`cut`: the line may go on where the text breaks off."""
        for separator in _SEPARATORS if "bus_id" in line.lower() else ():
            columns = [_column(cell) for cell in _split(line, separator)]
            if "pci.bus_id" in columns:
                self.columns, self._separator = columns, separator
                return
        if self.columns is None or not any(c.isdigit() for c in line):
            return  # a message: a row has at least a number
        if len(self._rows) >= _MAX_ROWS:
            self._nameless += 1
            return
        row, understood = _read_row(line, self.columns, self._separator)
        if cut and understood:
            row.pop(self.columns[-1], None)  # it could be half a value
        self._bad += not understood
        bus_id = sysfs_bus_id(row.get("pci.bus_id", ""))
        if bus_id is None:
            self._nameless += 1
            return
        known = self._rows.get(bus_id)
        # Of two rows that differ, what both say.
        if known is not None:
            row = {name: value for name, value in known.items() if row.get(name) == value}
        self._rows[bus_id] = row

    def report(self, *, complete: bool) -> SmiReport:
        if _strange(self.columns or ()) and self._bad:
            # A stray separator in the header makes a column that is none: where rows do not
            # fit it, nothing shows which value belongs to which column.
            self._rows = {bus_id: {} for bus_id in self._rows}
        counts = {number_of(row.get("count")) for row in self._rows.values()} - {None}
        if len(counts) == 1:
            complete = float(len(self._rows)) in counts
        return _report(self._rows, self._bad, complete=complete and not self._nameless)


def _strange(columns: Sequence[str]) -> bool:
    """Whether a column is there that mx-smi is not known to have."""
    return not _KNOWN_FIELDS.issuperset(columns)


def _column(cell: str) -> str:
    """A column's name, lower case, without a unit in brackets: `memory.total [MiB]`."""
    # No pattern: one that begins with spaces takes hours for a megabyte of them.
    return _unquoted(cell).partition("[")[0].partition("(")[0].strip().lower()


def _unquoted(cell: str) -> str:
    return cell.strip().strip("\"'").strip()


def _split(line: str, separator: str) -> list[str]:
    """At separators that are not inside a cell that begins and ends with a quote."""
    parts = line.split(separator)
    if '"' not in line or len(parts) > _MAX_CELLS:
        return parts
    cells: list[str] = []
    at = 0
    while at < len(parts):
        length = 1
        if parts[at].lstrip().startswith('"'):
            closing = (
                number
                for number, part in enumerate(parts[at : at + _MAX_JOINED], 1)
                if _ends_quoted(part, number)
            )
            length = next(closing, 1)
        cells.append(separator.join(parts[at : at + length]))
        at += length
    return cells


def _ends_quoted(part: str, number: int) -> bool:
    part = part.strip()
    return part.endswith('"') and (number > 1 or len(part) > 1)


def _read_row(line: str, columns: Sequence[str], separator: str) -> tuple[Row, bool]:
    """The values of a row, and whether all of it was understood.

    Where it has more cells than there are columns, some value has separators in it. Each
    way to join cells is tried; a value counts where all ways that make sense agree.
    """
    cells = _split(line, separator)
    extra = len(cells) - len(columns)
    if extra == 0:
        row = {name: _unquoted(cell) for name, cell in zip(columns, cells, strict=True)}
        if sysfs_bus_id(row["pci.bus_id"]) is not None:
            return row, not _strange(columns) or all(map(_plausible, row, row.values()))
    ways: list[Row] = []
    if extra > 0 and len(cells) <= _MAX_CELLS:
        for place, joined in enumerate(columns):
            row = {
                name: _unquoted(cell)
                for name, cell in zip(columns, _joined(cells, place, extra, separator), strict=True)
            }
            if sysfs_bus_id(row["pci.bus_id"]) and all(map(_plausible, row, row.values())):
                ways.append(row)
                if joined == "pci.bus_id":
                    ways.pop()
    if ways:
        agreed = {n: v for n, v in ways[0].items() if all(way[n] == v for way in ways[1:])}
        return agreed, len(ways) == 1
    found = set(_BUS_ID.findall(line))
    return ({"pci.bus_id": found.pop()} if len(found) == 1 else {}), False


def _joined(cells: Sequence[str], place: int, extra: int, separator: str) -> list[str]:
    end = place + extra + 1
    return [*cells[:place], separator.join(cells[place:end]), *cells[end:]]


def _plausible(column: str, cell: str) -> bool:
    """Whether the cell can be a value of the column."""
    if _NO_VALUE.fullmatch(cell):
        return True
    if column in ("index", "count", "cores") or column.startswith("ecc."):
        return re.fullmatch(r"\d{1,18}", cell, re.ASCII) is not None
    if column in _UNITS:
        return measured(column, cell) is not None
    if column in ("driver_version", "sola_version"):
        return version_of(cell) is not None
    return True


def _report(rows: Mapping[str, Row], bad: int, *, complete: bool) -> SmiReport:
    # What is said of the node is said in each row; where they differ it is not known.
    versions: dict[str, str | None] = {}
    for name in ("driver_version", "sola_version"):
        said = {text_of(row.get(name)) for row in rows.values()} - {None}
        versions[name] = said.pop() if len(said) == 1 else None
    return SmiReport(
        devices=tuple(_device(bus_id, rows[bus_id]) for bus_id in sorted(rows)),
        driver_version=versions["driver_version"],
        sola_version=versions["sola_version"],
        bad_rows=bad,
        complete=complete,
    )


def _device(bus_id: str, row: Row) -> SmiDevice:
    values: dict[str, Any] = {
        name: kind(number)
        for column, (name, kind) in _TELEMETRY.items()
        if (number := measured(column, row.get(column))) is not None
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
        telemetry=Telemetry(**values),
    )


def measured(column: str, text: str | None) -> float | None:
    """A reading in our units; None for what cannot be one of this column."""
    if column == "utilization" and text and _LIST.fullmatch(text[:_MAX_TEXT]):  # one for each core
        shares = [float(share) for share in re.findall(r"\d+(?:\.\d+)?", text, re.ASCII)]
        return sum(shares) / len(shares)
    number = number_of(text, tuple(_UNITS.get(column, {}).items()))
    if number is None or (column.startswith("ecc.") and number < 0):
        return None
    if column == "temperature" and not TEMPERATURES[0] <= number <= TEMPERATURES[1]:
        return None
    return number


@lru_cache(maxsize=512)  # most cells say what they said at the last run
def number_of(text: str | None, units: tuple[tuple[str, float], ...] = ()) -> float | None:
    """A number, or one with one of these units and its factor; None for anything else.
    `1,204` is a thousand and more, `43,5` a decimal number.

    >>> number_of("20 GiB", (("gib", 1024.0),))
    20480.0
    """
    match = _NUMBER.fullmatch((text or "").strip()[:_MAX_TEXT])
    if match is None:
        return None
    unit = (match[2] or "").strip().lower()
    factor = dict(units).get(unit) if unit else 1.0
    if factor is None:
        return None
    digits = match[1]
    decimal = re.fullmatch(r"-?\d+,\d{1,2}", digits)
    number = float(digits.replace(",", "." if decimal else "")) * factor
    return number if abs(number) <= MAX_NUMBER else None


@lru_cache(maxsize=512)
def text_of(text: str | None) -> str | None:
    """Printable text of a bounded length; None for `N/A`, `ERR!` and their like."""
    if text is None or _NO_VALUE.fullmatch(text.strip()[:_MAX_TEXT]):
        return None
    return "".join(c if c.isprintable() else "?" for c in text.strip())[:_MAX_TEXT]


# -- mx-smi query ---------------------------------------------------------------------

#: What `query` prints, by the names above it, and the column of `select` that it is.
_QUERY_NAMES: Mapping[str, str] = {
    "product name": "name",
    "spu cores number": "cores",
    "fw version": "firmware_version",
    "mcu version": "mcu_version",
    "serial number": "serial",
    "uuid": "uuid",
    "board id": "board",
    "pci/bus id": "pci.bus_id",
    "memory usage/total": "memory.total",
    "memory usage/reserved": "memory.reserved",
    "memory usage/used": "memory.used",
    "memory usage/free": "memory.free",
    "utilization/avg": "utilization",
    "temperature": "temperature",
    "power/power draw": "power.draw",
    "power/power limit": "power.limit",
    "frequency": "frequency",
    "voltage": "volatile",
    **{
        f"ecc errors/{span}/device memory {kind}": f"ecc.errors.{kind}.{span}.device_memory"
        for kind in ("corrected", "uncorrected")
        for span in ("volatile", "aggregate")
    },
}


def parse_query(text: str) -> tuple[SmiReport, int | None]:
    """What `mx-smi query` prints, and how many devices it says are attached. Raises
    GarbageError where there is no device in it. Never `complete`: it is asked only
    where `select` was not understood."""
    lines, whole = _lines(text)
    common: Row = {}
    rows: list[Row] = []
    above: list[tuple[int, str]] = []  # indentations and names
    for line in lines if whole else lines[:-1]:
        name, colon, value = (part.strip() for part in line.partition(" : "))
        name = name.lower()
        indent = len(line) - len(line.lstrip())
        if match := re.fullmatch(r"device (\d{1,6})", name, re.ASCII):
            rows.append({"index": match[1]})
            above = []
            continue
        while above and above[-1][0] >= indent:
            above.pop()
        if not colon:
            above.append((indent, name))
            continue
        path = "/".join((*(title for _, title in above), name))
        if not rows:
            common[path] = value
        elif column := _QUERY_NAMES.get(path):
            rows[-1].setdefault(column, value)
    by_id = {bus_id: row for row in rows if (bus_id := sysfs_bus_id(row.get("pci.bus_id", "")))}
    if not by_id:
        raise GarbageError(_beginning(text))
    for row in by_id.values():
        row["driver_version"] = common.get("driver version", "")
        row["sola_version"] = common.get("sola version", "")
    attached = number_of(common.get("attached devices"))
    report = _report(by_id, len(rows) - len(by_id), complete=False)
    return report, None if attached is None else int(attached)


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
