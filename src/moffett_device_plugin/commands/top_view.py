"""Draws `top`: a screen of a terminal, or plain tables."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from ..devices.state import NodeState
from .device_rows import TOP, Row, Sort, grouped
from .device_table import summary, table_of
from .output import WIDTH_OF_A_PIPE

KEYS: dict[str, Sort] = {"u": "util", "m": "mem", "t": "temp", "p": "power", "i": "index"}


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
        cards = grouped(scene.rows, view.sort, reverse=view.reverse)
        table = table_of(
            cards, TOP, width=options.max_width, bars=bars, lines=slice(offset, offset + page)
        )
        hidden = line_count(scene) - page
        yield Group(
            _headline(scene, options.max_width),
            *_unknown(scene),
            *([table] if scene.rows else []),
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
    text = Text(time.strftime("%H:%M:%S   "), style="bold", no_wrap=True, overflow="ellipsis")
    text.append_text(summary(scene.state))
    text.truncate(width, overflow="ellipsis")
    return text


def _unknown(scene: Scene) -> Sequence[Text]:
    if scene.pods_unknown is None:
        return ()
    text = f"pods are not known: {scene.pods_unknown}"
    return (Text(text, style="dim", no_wrap=True, overflow="ellipsis"),)


def print_plain(scene: Scene, view: View) -> None:
    """For a pipe: the whole table, without colours."""
    text = io.StringIO()
    out = Console(file=text, width=WIDTH_OF_A_PIPE, color_system=None, force_terminal=False)
    out.print(_headline(scene, WIDTH_OF_A_PIPE))
    if scene.rows:
        out.print(table_of(grouped(scene.rows, view.sort, reverse=view.reverse), TOP))
    for line in text.getvalue().splitlines():
        print(line.rstrip())
