"""Metric families from a view. Pure, except for the `process_*` metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import devices, dra, plugin
from .library import Metric, ProcessCollector
from .view import View

_process = ProcessCollector(registry=None)


def collect(view: View) -> Iterator[Metric]:
    """Every family that has a sample; docs/monitoring.md describes them."""
    families: tuple[Iterable[Metric], ...] = (
        devices.families(view),
        plugin.families(view),
        _dra(view),
        _process.collect(),
    )
    return (family for group in families for family in group if family.samples)


def _dra(view: View) -> Iterable[Metric]:
    if view.dra is None:
        return ()
    last = view.dra.last_write
    return dra.families(view.dra, 0.0 if last is None else view.unix_time(last))
