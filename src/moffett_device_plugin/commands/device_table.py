"""Draws the table of `devices` and `top`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from ..devices.state import NodeState
from .device_rows import Column, Group, Row, cell

NO_SPU = "no SPU on this node's PCI bus (vendor 0x1f36, a processing accelerator)"
_BAR = 8
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GAP = 2
#: What these columns may shrink to, in the order in which they get room back.
_LEAST: Mapping[Column, int] = {"POD": 16, "HEALTH": 20}
#: Of a PCI address, and of what tells `healthy` from `unhealthy`.
_ADDRESS = len("0000:00:00.0")
_LEAST_HEALTH = 4
_RIGHT = frozenset({"INDEX", "UTIL", "MEMORY", "TEMP", "POWER", "FREQ"})
#: What is left out where it is narrow, the first one first.
_EXPENDABLE: Sequence[Column] = (
    "NODES", "FREQ", "POWER", "MEMORY", "NUMA", "POD", "TEMP", "UTIL", "INDEX",
)  # fmt: skip


def table_of(
    cards: Sequence[Group],
    columns: Sequence[Column],
    *,
    width: int | None = None,
    bars: bool = False,
    wrap: bool = False,
    lines: slice = slice(None),
) -> Table:
    """In at most `width` columns of the terminal, if that is given. The widths are those of
    the whole list, so that nothing moves sideways when it is scrolled. With `wrap`, health
    takes as many lines as it needs."""
    drawn: list[list[Text]] = []
    for card in cards:
        # In the second column: titles are wider than numbers are.
        drawn.append([Text(), Text(card.title, style="cyan"), *(Text() for _ in columns[2:])])
        drawn += [_drawn(row, columns, bars=bars) for row in card.rows]
    widths = {
        title: max(len(title), *(texts[at].cell_len for texts in drawn), 0)
        for at, title in enumerate(columns)
    }
    if width is not None:
        widths = fitted(widths, width)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for title, column in widths.items():
        right = title in _RIGHT
        table.add_column(
            title, width=column, justify="right" if right else "left",
            no_wrap=not (wrap and title == "HEALTH"), overflow="fold" if wrap else "ellipsis",
        )  # fmt: skip
    for texts in drawn[lines]:
        named = dict(zip(columns, texts, strict=True))
        table.add_row(*(named[title] for title in widths))
    return table


def fitted(widths: Mapping[Column, int], width: int) -> dict[Column, int]:
    """Columns that fit into `width`: first health and pods get narrower, then those are
    left out that matter least."""
    kept = dict(widths)
    for expendable in (None, *_EXPENDABLE):
        if expendable is not None:
            kept.pop(expendable, None)
        shrunk = {
            title: min(kept[title], least) for title, least in _LEAST.items() if title in kept
        }
        fixed = sum(size for title, size in kept.items() if title not in shrunk)
        room = width - fixed - _GAP * (len(kept) - 1) - sum(shrunk.values())
        if room < 0:
            continue
        for title, size in shrunk.items():
            more = min(room, kept[title] - size)
            kept[title] = size + more
            room -= more
        return kept
    return _narrowest(widths, width)


def _narrowest(widths: Mapping[Column, int], width: int) -> dict[Column, int]:
    """The devices and as much of their health as there is room for; titles of cards are cut."""
    name = min(widths.get("ID", 0), _ADDRESS)
    room = width - name - _GAP
    if "HEALTH" in widths and room >= _LEAST_HEALTH:
        return {"ID": name, "HEALTH": min(widths["HEALTH"], room)}
    return {"ID": max(1, min(widths.get("ID", 0), width))}


def _drawn(row: Row, columns: Sequence[Column], *, bars: bool) -> list[Text]:
    named: dict[Column, Text] = {column: Text(cell(row, column)) for column in columns}
    if bars and row.telemetry.utilization_percent is not None:
        named["UTIL"].append(f" {bar(row.telemetry.utilization_percent)}", style="green")
    health = "red" if row.unhealthy else ("yellow" if row.why else "green")
    named["HEALTH"].stylize(health)
    if "over-temperature" in row.why:
        named["TEMP"].stylize("red")
    return list(named.values())


def bar(percent: float) -> str:
    """Eight cells wide, in eighths of a cell.

    >>> bar(50)
    '████    '
    """
    eighths = round(max(0.0, min(percent, 100.0)) / 100 * _BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR)


def summary(state: NodeState) -> Text:
    """One line on all of the node."""
    snapshot, statuses = state.snapshot, state.health_statuses.values()
    if not snapshot.devices:
        return Text(NO_SPU)
    cards = len({device.card for device in snapshot.devices})
    parts = [
        f"{_count(len(snapshot.devices), 'device')} on {_count(cards, 'card')},"
        f" {sum(status.healthy for status in statuses)} healthy",
        f"SOLA {snapshot.sola_version or 'unknown'}, driver {snapshot.driver_version or 'unknown'}",
    ]
    if snapshot.smi.error is not None:
        parts.append(f"mx-smi failed: {snapshot.smi.error}")
    elif not snapshot.smi.present:
        parts.append("no mx-smi: sysfs alone")
    return Text("; ".join(parts))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
