"""A picture of the dashboard's panels, for the documents: drawn from what a Prometheus
answers to their queries, by chromium. It shows what the panels show; it is not Grafana."""

from __future__ import annotations

import html
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import dashboard
from .prometheus import Prometheus

_COLOURS = (
    "#2f6fb0", "#d9822b", "#3a9a5b", "#b5485d", "#7b5ea7", "#8a6d3b", "#2b9aa0", "#c45ab3",
    "#6b7d2a", "#5b6472",
)  # fmt: skip
_COLUMN, _ROW, _GAP = 50, 24, 8
_WIDTH = 24 * _COLUMN + _GAP
_STYLE = """
body { margin: 0; background: #fff; font: 11px "DejaVu Sans", sans-serif; color: #222;
       position: relative }
h1 { font-size: 15px; margin: 10px 8px 4px } h1 small { font-weight: normal; color: #667 }
.panel { position: absolute; border: 1px solid #ccd; border-radius: 3px; overflow: hidden }
.panel b { display: block; padding: 3px 6px; background: #f2f4f7 }
.row { position: absolute; font-weight: bold; font-size: 13px; color: #345 }
.stat { font-size: 26px; text-align: center; padding-top: 10px }
table { border-collapse: collapse; margin: 4px; font-size: 9.5px; white-space: nowrap }
td, th { padding: 2px 5px; text-align: left }
th { color: #667; font-weight: normal; border-bottom: 1px solid #ccd }
.legend { padding: 0 6px; font-size: 9px; line-height: 12px; color: #445 }
text { font-size: 9px; fill: #667 }
"""


def draw(prometheus: Prometheus, start: float, end: float, target: Path) -> None:
    """Writes a PNG of all panels from `start` to `end`, which are Unix times."""
    panels, top = [], 34
    laid_out = list(_opened(dashboard.load()["panels"]))
    for panel, grid in laid_out:
        left, width = grid["x"] * _COLUMN + _GAP, grid["w"] * _COLUMN - _GAP
        y, height = top + grid["y"] * _ROW, grid["h"] * _ROW - _GAP
        place = f"left:{left}px;top:{y}px;width:{width}px;height:{height}px"
        if panel["type"] == "row":
            panels.append(f'<div class="row" style="{place}">{panel["title"]}</div>')
            continue
        body = _body(prometheus, panel, (start, end), (width, height - 24))
        panels.append(f'<div class="panel" style="{place}"><b>{panel["title"]}</b>{body}</div>')
    last = max(grid["y"] + grid["h"] for _, grid in laid_out)
    page = (
        f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>"
        "<h1>Moffett SPU <small>the panels of grafana-dashboard.json, drawn from the answers of a"
        " Prometheus that scraped a simulated node</small></h1>" + "".join(panels)
    )
    _photograph(page, (_WIDTH, top + last * _ROW), target)


def _opened(panels: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """Each panel and its place when every row is open."""
    lower = 0
    for panel in panels:
        grid = panel["gridPos"]
        yield panel, {**grid, "y": grid["y"] + lower}
        inside = panel.get("panels", ())
        for folded in inside:
            place = folded["gridPos"]
            yield folded, {**place, "y": place["y"] + lower}
        ends = [p["gridPos"]["y"] + p["gridPos"]["h"] for p in inside]
        lower += max(ends, default=grid["y"] + grid["h"]) - grid["y"] - grid["h"]


def _photograph(page: str, size: tuple[int, int], target: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("a picture needs chromium")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "page.html"
        source.write_text(page)
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={name}/profile", f"--window-size={size[0]},{size[1]}",
                f"--screenshot={target.absolute()}", source.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def _body(
    prometheus: Prometheus, panel: dict[str, Any], span: tuple[float, float], size: tuple[int, int]
) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    texts = [(dashboard.filled_in(t["expr"]), t["legendFormat"]) for t in panel["targets"]]
    if panel["type"] in ("timeseries", "state-timeline"):
        step = max(1.0, (span[1] - span[0]) / 200)
        found = [
            (_legend(legend, series["metric"]), series["values"])
            for expression, legend in texts
            for series in prometheus.over_time(expression, *span, step)
        ]
        if panel["type"] == "state-timeline":
            return _bars(found, span, size)
        return _chart(found, span, size, unit, panel["fieldConfig"]["defaults"])
    if panel["type"] == "stat":
        values = [
            f"{_number(round(float(series['value'][1])), unit)}"
            + (f" <small>{legend}</small>" if len(texts) > 1 else "")
            for expression, legend in texts
            for series in prometheus.query(expression)
        ]
        scale = 26 if len(values) < 2 else 15
        return f'<div class="stat" style="font-size:{scale}px">{"<br>".join(values)}</div>'
    return _table(panel, [s for expression, _ in texts for s in prometheus.query(expression)])


def _table(panel: dict[str, Any], series: list[dict[str, Any]]) -> str:
    options = panel["transformations"][0]["options"]
    names, order = options["renameByName"], options.get("indexByName", {})
    rows = [{**s["metric"], "Value": f"{float(s['value'][1]):g}"} for s in series]
    columns = {key for row in rows for key in row} - set(options["excludeByName"])
    shown = sorted(columns, key=lambda key: (order.get(key, 99), key == "Value", key))
    rows.sort(key=lambda row: [row.get(key, "") for key in shown])
    head = "".join(f"<th>{html.escape(names.get(key, key))}" for key in shown)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(row.get(key, ''))}" for key in shown) for row in rows
    )
    return f"<table><tr>{head}{body}</table>"


def _legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def _bars(
    found: Sequence[tuple[str, list[tuple[float, str]]]],
    span: tuple[float, float],
    size: tuple[int, int],
) -> str:
    """A row for each series, with a bar for as long as it is there."""
    width, height = size
    row = min(22.0, (height - 8) / max(1, len(found)))
    parts = [f'<svg width="{width}" height="{height}">']
    for number, (name, values) in enumerate(sorted(found)):
        y = 6 + number * row
        for run in _runs(values):
            x = [width * (run[end][0] - span[0]) / (span[1] - span[0]) for end in (0, -1)]
            parts.append(
                f'<rect x="{x[0]:.1f}" y="{y:.1f}" width="{max(2.0, x[1] - x[0]):.1f}"'
                f' height="{row - 4:.1f}" fill="{_COLOURS[number % len(_COLOURS)]}"'
                ' fill-opacity="0.45"/>'
            )
        parts.append(f'<text x="6" y="{y + row / 2 + 2:.1f}">{html.escape(name)}</text>')
    return "".join(parts) + "</svg>"


def _chart(
    found: Sequence[tuple[str, list[tuple[float, str]]]],
    span: tuple[float, float],
    size: tuple[int, int],
    unit: str,
    defaults: dict[str, Any],
) -> str:
    width, height = size
    longest = max((len(name) for name, _ in found), default=0)
    per_line = max(1, int(width // (5.3 * longest + 24)))
    lines = min(math.ceil(len(found) / per_line), 7)
    legend_height = 13 * lines + 4
    left, right, top, bottom = 52, 8, 6, 16
    plot = width - left - right, height - legend_height - top - bottom
    numbers = [float(v) for _, values in found for _, v in values if v != "NaN"]
    low = defaults.get("min", min(numbers, default=0.0))
    high = defaults.get("max", max(numbers, default=1.0))
    ticks = _ticks(low, high if high > low else low + 1)
    low, high = min(ticks[0], low), max(ticks[-1], high)

    def x(moment: float) -> float:
        return left + plot[0] * (moment - span[0]) / (span[1] - span[0])

    def y(value: float) -> float:
        return top + plot[1] * (1 - (value - low) / (high - low))

    parts = [f'<svg width="{width}" height="{height - legend_height}">']
    for tick in ticks:
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"'
            f' stroke="#e4e7ec"/><text x="{left - 5}" y="{y(tick) + 3:.1f}"'
            f' text-anchor="end">{_number(tick, unit)}</text>'
        )
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        moment = span[0] + share * (span[1] - span[0])
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(
            f'<text x="{x(moment):.1f}" y="{top + plot[1] + 12}" text-anchor="{anchor}">'
            f"{time.strftime('%H:%M:%S', time.gmtime(moment))}</text>"
        )
    for number, (_, values) in enumerate(found):
        colour = _COLOURS[number % len(_COLOURS)]
        for run in _runs(values):
            points = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in run)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
            )
    parts.append("</svg>")
    names = "".join(
        f'<span style="display:inline-block;width:{100 / per_line:.1f}%;white-space:nowrap;'
        f'overflow:hidden"><span style="color:{_COLOURS[n % len(_COLOURS)]}">&#9632;</span>'
        f" {html.escape(name)}</span>"
        for n, (name, _) in enumerate(found[: per_line * lines])
    )
    return "".join(parts) + f'<div class="legend">{names}</div>'


def _runs(values: list[tuple[float, str]]) -> Iterable[list[tuple[float, float]]]:
    """The parts of a series without a hole in them."""
    run: list[tuple[float, float]] = []
    step = min((b[0] - a[0] for a, b in pairwise(values)), default=1.0)
    for moment, text in values:
        if text == "NaN" or (run and moment - run[-1][0] > 1.5 * step):
            if run:
                yield run
            run = []
        if text != "NaN":
            run.append((moment, float(text)))
    if run:
        yield run


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    scale = 10 ** math.floor(math.log10(rough))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= rough * 0.999)
    first = math.floor(low / step)
    return [n * step for n in range(first, math.ceil(high / step - 1e-9) + 1)]


def _number(value: float, unit: str) -> str:
    match unit:
        case "percentunit":
            return f"{100 * value:.0f} %"
        case "bytes":
            return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
        case "watt":
            return f"{value:.0f} W"
        case "celsius":
            return f"{value:.0f} °C"
        case "s":
            return f"{value * 1000:.2g} ms" if 0 < value < 1 else f"{value:.0f} s"
    return f"{value:g}"
