"""Draws `top`: a screen of a terminal, or plain tables."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ..devices.state import NodeState
from .top_rows import TITLES, Row, Sort, cells, grouped

KEYS: dict[str, Sort] = {"u": "util", "m": "mem", "t": "temp", "p": "power", "i": "index"}
WIDTH_OF_A_PIPE = 1000  # columns are as wide as what is in them
_BAR = 8
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GAP = 2
#: What these columns may shrink to; in the order in which they get room back.
_LEAST = {"POD": 16, "HEALTH": 20}
_RIGHT = frozenset({"INDEX", "UTIL", "MEMORY", "TEMP", "POWER", "FREQ"})


@dataclass(frozen=True, slots=True)
class View:
    """How the reader wants it. `offset` is the first line of the list that is shown."""

    sort: Sort = "index"
    reverse: bool = False
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to show."""

    state: NodeState
    rows: tuple[Row, ...]
    pods_unknown: str | None


def after_key(view: View, key: str, lines: int, page: int) -> View:
    """The view after a key was pressed, with `lines` in the list of which `page` fit."""
    if key in KEYS:
        return View(KEYS[key], False, 0)
    steps = {"up": -1, "down": 1, "page-up": -page, "page-down": page, "home": -lines, "end": lines}
    if key == "r":
        return replace(view, reverse=not view.reverse, offset=0)
    if key in steps:
        return replace(view, offset=clamped(view.offset + steps[key], lines, page))
    return view


def clamped(offset: int, lines: int, page: int) -> int:
    return max(0, min(offset, lines - page))


def line_count(scene: Scene) -> int:
    """Lines of the whole list: a title for each card, and its devices."""
    return len({row.device.card for row in scene.rows}) + len(scene.rows)


class Screen:
    """One screenful; it asks for its size when it is drawn."""

    def __init__(self, scene: Scene, view: View) -> None:
        self._scene = scene
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        scene, view = self._scene, self._view
        page = page_size(options.size.height, scene)
        offset = clamped(view.offset, line_count(scene), page)
        bars = options.encoding.startswith("utf") and options.max_width >= 100
        table = table_of(
            scene, view, width=options.max_width, bars=bars, lines=slice(offset, offset + page)
        )
        hidden = line_count(scene) - page
        yield Group(
            _headline(scene, options.max_width),
            *_unknown(scene),
            table if scene.rows else Text("no SPU on this node's PCI bus"),
        )
        yield Text(_footer(view, offset, hidden), style="reverse", no_wrap=True, overflow="crop")


def page_size(height: int, scene: Scene) -> int:
    """Lines of the list that fit: all but headline, titles and footer."""
    return max(1, height - 3 - len(_unknown(scene)))


def _footer(view: View, offset: int, hidden: int) -> str:
    order = f"sorted by {view.sort}{', reversed' if view.reverse else ''}"
    keys = "u util  m mem  t temp  p power  i index  r reverse  q quit"
    scroll = f"  arrows scroll ({offset} above, {max(0, hidden - offset)} below)"
    return f" {keys}  | {order}{scroll if hidden > 0 else ''} "


def _headline(scene: Scene, width: int) -> Text:
    healthy = sum(not row.unhealthy for row in scene.rows)
    snapshot = scene.state.snapshot
    parts = [
        time.strftime("%H:%M:%S"),
        f"{len(scene.rows)} SPUs, {healthy} healthy",
        f"SOLA {snapshot.sola_version or 'unknown'}",
        f"driver {snapshot.driver_version or 'unknown'}",
    ]
    if snapshot.smi.error is not None:
        parts.append(f"mx-smi failed: {snapshot.smi.error}")
    elif not snapshot.smi.present:
        parts.append("no mx-smi: sysfs alone")
    text = Text("   ".join(parts), style="bold", no_wrap=True, overflow="ellipsis")
    text.truncate(width, overflow="ellipsis")
    return text


def _unknown(scene: Scene) -> Sequence[Text]:
    if scene.pods_unknown is None:
        return ()
    text = f"pods are not known: {scene.pods_unknown}"
    return (Text(text, style="dim", no_wrap=True, overflow="ellipsis"),)


def table_of(
    scene: Scene,
    view: View,
    *,
    width: int | None = None,
    bars: bool = False,
    lines: slice = slice(None),
) -> Table:
    """In at most `width` columns, where there is one. The widths are those of the whole
    list, so that nothing moves sideways when it is scrolled."""
    drawn: list[list[Text]] = []
    for card in grouped(scene.rows, view.sort, reverse=view.reverse):
        # In the second column: titles are wider than numbers are.
        drawn.append([Text(), Text(card.title, style="cyan"), *(Text() for _ in TITLES[2:])])
        drawn += [_drawn(row, bars=bars) for row in card.rows]
    widths = {
        title: max(len(title), *(texts[at].cell_len for texts in drawn), 0)
        for at, title in enumerate(TITLES)
    }
    if width is not None:
        widths = fitted(widths, width)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for title, column in widths.items():
        right = title in _RIGHT
        table.add_column(
            title, no_wrap=True, overflow="ellipsis", width=column,
            justify="right" if right else "left",
        )  # fmt: skip
    for texts in drawn[lines]:
        named = dict(zip(TITLES, texts, strict=True))
        table.add_row(*(named[title] for title in widths))
    return table


def fitted(widths: Mapping[str, int], width: int) -> dict[str, int]:
    """Columns that fit into `width`: first health and pods get narrower, then those go
    that say least."""
    kept = dict(widths)
    for expendable in (None, "FREQ", "POWER", "MEMORY", "POD", "TEMP", "UTIL", "INDEX"):
        if expendable is not None:
            del kept[expendable]
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
    return {title: max(1, min(size, width)) for title, size in kept.items() if title == "ID"}


def _drawn(row: Row, *, bars: bool) -> list[Text]:
    texts = [Text(cell) for cell in cells(row)]
    named = dict(zip(TITLES, texts, strict=True))
    if bars and row.telemetry.utilization_percent is not None:
        named["UTIL"].append(f" {bar(row.telemetry.utilization_percent)}", style="green")
    health = "red" if row.unhealthy else ("yellow" if row.why else "green")
    named["HEALTH"].stylize(health)
    if "over-temperature" in row.why:
        named["TEMP"].stylize("red")
    return texts


def bar(percent: float) -> str:
    """Eight cells wide, in eighths of a cell.

    >>> bar(50)
    '████    '
    """
    eighths = round(max(0.0, min(percent, 100.0)) / 100 * _BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR)


def print_plain(scene: Scene, view: View) -> None:
    """For a pipe: the whole table, no colours, no width to keep."""
    if not scene.rows:
        print("no SPU on this node's PCI bus (vendor 0x1f36, a processing accelerator)")
        return
    text = io.StringIO()
    console = Console(file=text, width=WIDTH_OF_A_PIPE, color_system=None, force_terminal=False)
    console.print(_headline(scene, WIDTH_OF_A_PIPE))
    console.print(table_of(scene, view))
    for line in text.getvalue().splitlines():
        print(line.rstrip())
