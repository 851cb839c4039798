"""The rows of `devices` and `top` before they are drawn: by card, sorted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from ..hardware.types import Telemetry
from ..runtime.sanitize import sanitize

if TYPE_CHECKING:
    from ..devices.inventory import Device
    from ..devices.state import NodeState
    from ..podresources.client import Holder

Sort = Literal["util", "mem", "temp", "power", "index"]
SORTS: tuple[Sort, ...] = ("util", "mem", "temp", "power", "index")


@dataclass(frozen=True, slots=True)
class Row:
    """A device and who holds it. `why` is the reasons of its health status, also those
    of a healthy device's warnings."""

    device: Device
    telemetry: Telemetry
    unhealthy: bool
    why: str
    holders: tuple[Holder, ...]

    @property
    def memory_share(self) -> float | None:
        """Of the memory, how much is used: 0 to 1."""
        used, total = self.telemetry.memory_used_mib, self.telemetry.memory_total_mib
        return None if used is None or not total else used / total

    @property
    def pods(self) -> str:
        return ", ".join(dict.fromkeys(sanitize(f"{h.namespace}/{h.pod}") for h in self.holders))


@dataclass(frozen=True, slots=True)
class Group:
    """A card's rows."""

    title: str
    rows: tuple[Row, ...]


def rows_of(
    state: NodeState, holders: Mapping[str, tuple[Holder, ...]] = MappingProxyType({})
) -> tuple[Row, ...]:
    """In bus order."""
    rows: list[Row] = []
    for device in state.snapshot.devices:
        health_status = state.health_statuses[device.id]
        why = "; ".join(f"{reason.code}: {reason.message}" for reason in health_status.reasons)
        telemetry = device.telemetry or Telemetry()
        rows.append(
            Row(device, telemetry, not health_status.healthy, why, holders.get(device.id, ()))
        )
    return tuple(rows)


#: What a device is sorted by; the highest first, but for the index.
_KEYS: Mapping[Sort, Callable[[Row], float | None]] = {
    "util": lambda row: row.telemetry.utilization_percent,
    "mem": lambda row: row.memory_share,
    "temp": lambda row: row.telemetry.temperature_celsius,
    "power": lambda row: row.telemetry.power_draw_watts,
    "index": lambda row: -row.device.index,
}


def grouped(rows: Sequence[Row], sort: Sort = "index", *, reverse: bool = False) -> list[Group]:
    """Cards by their first device's value, and the devices of each by their own. What
    is not known comes last; equal ones keep the bus order."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(row.device.card, []).append(row)

    def key(row: Row) -> tuple[bool, float]:
        value = _KEYS[sort](row)
        if value is None:
            return (True, 0.0)
        return (False, value if reverse else -value)

    cards = [tuple(sorted(on_card, key=key)) for on_card in members.values()]
    cards.sort(key=lambda on_card: key(on_card[0]))
    return [Group(_title(on_card[0].device), on_card) for on_card in cards]


def _title(device: Device) -> str:
    return f"{device.product or 'SPU'} {device.serial or device.card}"


# -- cells ----------------------------------------------------------------------------

Column = Literal[
    "INDEX", "ID", "NUMA", "NODES", "UTIL", "MEMORY", "TEMP", "POWER", "FREQ", "HEALTH", "POD"
]
#: What the two commands show, from left to right.
DEVICES: tuple[Column, ...] = (
    "INDEX", "ID", "NUMA", "NODES", "UTIL", "MEMORY", "TEMP", "POWER", "HEALTH",
)  # fmt: skip
TOP: tuple[Column, ...] = (
    "INDEX", "ID", "UTIL", "MEMORY", "TEMP", "POWER", "FREQ", "HEALTH", "POD",
)  # fmt: skip


def cell(row: Row, column: Column) -> str:
    """`-` for what is not known. A device node is named below /dev; /dev/null stands for
    the nodes of a simulated device, which has none."""
    t = row.telemetry
    match column:
        case "INDEX":
            return str(row.device.index)
        case "ID":
            return row.device.id
        case "NUMA":
            return _text(row.device.numa_node)
        case "NODES":
            paths = [node.host_path for node in row.device.function.nodes]
            return " ".join(p.removeprefix("/dev/") for p in paths if p != "/dev/null") or "-"
        case "UTIL":
            return _text(t.utilization_percent, " %")
        case "MEMORY":
            return _text(t.memory_used_mib, " MiB", t.memory_total_mib)
        case "TEMP":
            return _text(t.temperature_celsius, " C")
        case "POWER":
            return _text(t.power_draw_watts, " W", t.power_limit_watts)
        case "FREQ":
            return _text(t.frequency_mhz, " MHz")
        case "HEALTH":
            health = "unhealthy" if row.unhealthy else "healthy"
            return f"{health} ({row.why})" if row.why else health
        case _:
            return row.pods or "-"


def _text(value: float | None, unit: str = "", limit: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.10g}{'' if limit is None else f'/{limit:.10g}'}{unit}"
