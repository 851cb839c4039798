"""The parts of prometheus_client that are used: metric families and process metrics.

`import prometheus_client` runs the package's `__init__`, which imports a web server, a
mail parser and OpenSSL: 8 MiB on every node for code that never runs here. The modules
below need none of that and cost 0.1 MiB, so they are imported without it. Any other
import of prometheus_client in this process gets the whole package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


@contextmanager
def _without_init(package: str) -> Iterator[None]:
    """Inside the block, `package` is an empty module whose submodules can be imported.
    Nothing changes when it was imported before."""
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]


with _without_init("prometheus_client"):
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.process_collector import ProcessCollector
    from prometheus_client.utils import floatToGoString

#: A number in the format of Go: 1.5e+09, +Inf.
go_float: Callable[[float], str] = floatToGoString

__all__ = (
    "CounterMetricFamily",
    "GaugeMetricFamily",
    "HistogramMetricFamily",
    "InfoMetricFamily",
    "Metric",
    "ProcessCollector",
    "go_float",
)
