"""The metric families of the DRA driver: `moffett_device_plugin_dra_...`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from ..podresources.client import Holder
from ..runtime.counters import SECONDS, Histogram
from .library import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric, go_float

_PREFIX = "moffett_device_plugin_dra_"
_BOUNDS = (*(go_float(bound) for bound in SECONDS), "+Inf")


@dataclass(frozen=True, slots=True)
class DraView:
    """The DRA driver at one time. `on`: devices are given out through DRA. `registered`: a
    kubelet has the driver. `published`: the API server has the slices that the state of the
    node asks for, as far as is known. `claims`: prepared on this node now. `last_write` is a
    time of the monotonic clock, None for never. `users`: by device, the containers that use
    it through a claim, each with the claim's `namespace/name`. The others are counts since
    the driver started."""

    on: bool = True
    registered: bool = False
    published: bool = False
    claims: int = 0
    prepared: int = 0
    unprepared: int = 0
    unprepare_failures: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)  # by reason
    released: int = 0
    restored: int = 0
    writes: int = 0
    write_failures: int = 0
    last_write: float | None = None
    prepare_seconds: Histogram = field(default_factory=Histogram)
    unprepare_seconds: Histogram = field(default_factory=Histogram)
    users: Mapping[str, tuple[tuple[Holder, str], ...]] = field(default_factory=dict)


def families(dra: DraView, last_write: float) -> Iterator[Metric]:
    """`last_write` is a Unix time, 0 for never."""
    yield _gauge("enabled", "1 while devices are given out through DRA.", dra.on)
    yield _gauge("registered", "1 while the driver is registered with the kubelet.", dra.registered)
    documentation = "1 while the API server has the ResourceSlices that the node's state asks for."
    yield _gauge("published", documentation, dra.published)
    yield _gauge("claims", "Claims that are prepared on this node.", dra.claims)
    yield _gauge(
        "last_write_timestamp_seconds",
        "Unix time of the last ResourceSlice written; 0 for never.",
        last_write,
    )
    for name, documentation, value in (
        ("slice_writes", "ResourceSlices written.", dra.writes),
        ("slice_write_failures", "Attempts to publish that failed.", dra.write_failures),
        ("claims_prepared", "Claims prepared.", dra.prepared),
        ("claims_unprepared", "Claims unprepared.", dra.unprepared),
        ("unprepare_failures", "Claims that could not be unprepared.", dra.unprepare_failures),
        ("records_released", "Records of claims that no longer exist, removed.", dra.released),
        ("records_restored", "Records that were missing, written again.", dra.restored),
    ):
        yield CounterMetricFamily(_PREFIX + name, documentation, value=value)
    refusals = CounterMetricFamily(
        _PREFIX + "claim_refusals", "Claims that were not prepared.", labels=("reason",)
    )
    for reason, count in sorted(dra.refused.items()):
        refusals.add_metric((reason,), count)
    yield refusals
    for name, documentation, histogram in (
        ("prepare", "Time to prepare a claim.", dra.prepare_seconds),
        ("unprepare", "Time to unprepare a claim.", dra.unprepare_seconds),
    ):
        family = HistogramMetricFamily(f"{_PREFIX}{name}_duration", documentation, unit="seconds")
        buckets = tuple(zip(_BOUNDS, accumulate(histogram.counts), strict=True))
        family.add_metric((), buckets, histogram.sum)
        yield family


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, documentation, value=float(value))
