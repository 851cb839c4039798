"""Many rounds to one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .measure import Idle, Round


@dataclass(frozen=True, slots=True)
class Result:
    """Medians over the rounds, in the units that the table shows."""

    plugin: str
    devices: int
    rounds: int
    registered_ms: float | None
    listed_ms: float | None
    reregistered_ms: float | None
    relisted_ms: float | None
    same_inode: int  # in how many of the rounds
    removal_listed_ms: float | None
    return_listed_ms: float | None
    all_ones_listed_ms: float | None
    slowest_listed_ms: float | None  # the slowest of both faults in any round
    allocate_p50_ms: float | None
    allocate_p99_ms: float | None
    rss_mib: float | None
    private_dirty_mib: float | None
    idle_rss_mib: float | None
    idle_private_dirty_mib: float | None
    peak_rss_mib: float | None
    idle_cpu_percent: float | None
    image_mib: float | None


@dataclass(frozen=True, slots=True)
class Column:
    """A field of `Result` as the table shows it."""

    title: str
    field: str
    digits: int
    ratio: bool = True


COLUMNS = (
    Column("exec to Register, ms", "registered_ms", 1),
    Column("new socket to list, ms", "relisted_ms", 1),
    Column("removal listed, ms", "removal_listed_ms", 0, ratio=False),
    Column("all ones listed, ms", "all_ones_listed_ms", 0, ratio=False),
    Column("slowest, ms", "slowest_listed_ms", 0, ratio=False),
    Column("Allocate p50, ms", "allocate_p50_ms", 3),
    Column("p99, ms", "allocate_p99_ms", 3),
    Column("RSS, MiB", "rss_mib", 1),
    Column("dirty, MiB", "private_dirty_mib", 1),
    Column("idle RSS, MiB", "idle_rss_mib", 1),
    Column("idle CPU, %", "idle_cpu_percent", 2, ratio=False),
    Column("image, MiB", "image_mib", 1),
)


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all the values are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def result(
    plugin: str, devices: int, rounds: Sequence[Round], idle: Idle | None, image: int | None
) -> Result:
    def milliseconds(get: Callable[[Round], float | None]) -> float | None:
        value = _median(get(one) for one in rounds)
        return None if value is None else value * 1e3

    return Result(
        plugin=plugin,
        devices=devices,
        rounds=len(rounds),
        registered_ms=milliseconds(lambda r: r.registered),
        listed_ms=milliseconds(lambda r: r.listed),
        reregistered_ms=milliseconds(lambda r: r.reregistered),
        relisted_ms=milliseconds(lambda r: r.relisted),
        same_inode=sum(one.same_inode for one in rounds),
        removal_listed_ms=milliseconds(lambda r: r.removal_listed),
        return_listed_ms=milliseconds(lambda r: r.return_listed),
        all_ones_listed_ms=milliseconds(lambda r: r.all_ones_listed),
        slowest_listed_ms=_slowest(rounds),
        allocate_p50_ms=milliseconds(lambda r: quantile(r.allocates, 0.5)),
        allocate_p99_ms=milliseconds(lambda r: quantile(r.allocates, 0.99)),
        rss_mib=_median(one.memory.rss for one in rounds),
        private_dirty_mib=_median(one.memory.private_dirty for one in rounds),
        idle_rss_mib=idle.memory.rss if idle else None,
        idle_private_dirty_mib=idle.memory.private_dirty if idle else None,
        peak_rss_mib=idle.peak_rss if idle else None,
        idle_cpu_percent=idle.cpu * 100 if idle else None,
        image_mib=None if image is None else image / 2**20,
    )


def table(results: Sequence[Result], baseline: str) -> str:
    """Markdown, a line for each plugin and number of devices. In brackets: how many
    times the baseline's figure, at the same number of devices."""
    shown = [c for c in COLUMNS if any(getattr(r, c.field) is not None for r in results)]
    lines = [["devices", "plugin", *(column.title for column in shown)]]
    base = {r.devices: r for r in results if r.plugin == baseline}
    for r in results:
        cells = [_cell(r, base.get(r.devices), column) for column in shown]
        lines.append([str(r.devices), r.plugin, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * (width - 1) + ":" for width in widths]
    rule[1] = "-" * widths[1]
    lines.insert(1, rule)
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if i == 1 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _cell(of: Result, base: Result | None, column: Column) -> str:
    value: Any = getattr(of, column.field)
    if value is None:
        return "n/a"
    text = f"{value:.{column.digits}f}"
    reference: Any = getattr(base, column.field) if base else None
    if not column.ratio or of is base or not reference:
        return text
    return f"{text} ({value / reference:.2f}x)"


def _slowest(rounds: Sequence[Round]) -> float | None:
    times = [seconds for r in rounds for seconds in (r.removal_listed, r.all_ones_listed)]
    return max((seconds for seconds in times if seconds), default=0.0) * 1e3 or None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
