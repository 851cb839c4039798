"""Metric families as text: Prometheus 0.0.4 and OpenMetrics 1.0. Pure.

The output is byte for byte that of prometheus_client's own writers, which the tests check.
Those take five times as long, and the kubelet's calls wait for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from .library import Metric, go_float

Format = Literal["text", "openmetrics"]
CONTENT_TYPES: dict[Format, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
#: The text format has no type `info`; counters and infos have a suffix in their name.
_TEXT_TYPES = {"info": "gauge"}
_TEXT_SUFFIXES = {"counter": "_total", "info": "_info"}
#: Samples in one piece of text.
_PIECE = 200


def render(families: Iterable[Metric], form: Format) -> Iterator[str]:
    """The text in pieces, so that the caller can yield to the event loop in between."""
    texts: dict[int, tuple[dict[str, str], str]] = {}  # of labels, by identity
    for family in families:
        lines = _head(family, form)
        for sample in family.samples:
            labels = sample.labels
            known = texts.get(id(labels))
            if known is None:
                # Kept with its text, so that no other object gets its identity.
                known = texts[id(labels)] = (labels, _labels(labels))
            lines.append(f"{sample.name}{known[1]} {go_float(sample.value)}\n")
            if len(lines) >= _PIECE:
                yield "".join(lines)
                lines = []
        yield "".join(lines)
    if form == "openmetrics":
        yield "# EOF\n"


def _head(family: Metric, form: Format) -> list[str]:
    name, kind = family.name, family.type
    if form == "text":
        name += _TEXT_SUFFIXES.get(kind, "")
        kind = _TEXT_TYPES.get(kind, kind)
    lines = [f"# HELP {name} {family.documentation}\n", f"# TYPE {name} {kind}\n"]
    if family.unit and form == "openmetrics":
        lines.append(f"# UNIT {name} {family.unit}\n")
    return lines


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(labels[key])}"' for key in sorted(labels)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def negotiate(accept: str) -> Format:
    """The format for an HTTP Accept header: OpenMetrics when it is accepted with at least
    the quality of plain text, else the text format."""
    wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        if kind in wanted:
            wanted[kind] = max(wanted[kind], _quality(parameters))
    openmetrics, text = wanted.values()
    return "openmetrics" if openmetrics > 0 and openmetrics >= text else "text"


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter.removeprefix("q="))
            except ValueError:
                return 0.0
    return 1.0
