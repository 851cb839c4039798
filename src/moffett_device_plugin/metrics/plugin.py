"""The metric families of the plugin itself, the kubelet's calls and mx-smi:
`moffett_device_plugin_...`. Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import accumulate

from ..runtime.counters import SECONDS, Histogram, ResourceCounters
from .library import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    go_float,
)
from .view import View

PREFIX = "moffett_device_plugin_"
_BOUNDS = (*(go_float(bound) for bound in SECONDS), "+Inf")
_COUNTERS: tuple[tuple[str, str, Callable[[ResourceCounters], int]], ...] = (
    ("allocations", "Containers that devices were allocated to.", lambda t: t.allocations),
    ("registrations", "Registrations that the kubelet accepted.", lambda t: t.registrations),
    (
        "registration_failures", "Registrations that the kubelet rejected.",
        lambda t: t.registration_failures,
    ),
    (
        "list_and_watch_updates", "Lists of devices sent to the kubelet.",
        lambda t: t.list_and_watch_updates,
    ),
)  # fmt: skip
_REJECTIONS: tuple[tuple[str, Callable[[ResourceCounters], int]], ...] = (
    ("allocate", lambda t: t.allocation_rejections),
    ("placement", lambda t: t.placement_rejections),
    ("pre-start", lambda t: t.pre_start_rejections),
)
_DURATIONS: tuple[tuple[str, str, Callable[[ResourceCounters], Histogram]], ...] = (
    ("allocate", "Duration of Allocate calls.", lambda t: t.allocate_seconds),
    ("placement", "Duration of GetPreferredAllocation calls.", lambda t: t.placement_seconds),
)


def families(view: View) -> Iterator[Metric]:
    yield _build(view)
    yield from _units(view)
    yield from _calls(view)
    yield _count(
        "kubelet_starts",
        "Kubelet starts, including the first one seen.",
        view.counters.kubelet_starts,
    )
    if view.holders is not None:
        documentation = "1 while the kubelet answers on its pod-resources socket."
        yield _gauge("pod_resources_up", documentation, view.holders_known)
    yield from _smi(view)
    yield from _reloads(view)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, documentation, value=float(value))


def _count(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, documentation, value=value)


def _build(view: View) -> Metric:
    snapshot = view.state.snapshot
    labels = {
        "version": view.version,
        "commit": view.commit,
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "driver_version": snapshot.driver_version or "",
        "sola_version": snapshot.sola_version or "",
    }
    documentation = "Version of the plugin, and of the driver and SOLA on the node."
    return InfoMetricFamily(PREFIX + "build", documentation, value=labels)


def _units(view: View) -> Iterator[Metric]:
    units = GaugeMetricFamily(
        PREFIX + "units",
        "Advertised to the kubelet: devices, cards, or replicas of either.",
        labels=("resource", "state"),
    )
    allocated = GaugeMetricFamily(
        PREFIX + "allocated_units", "Units that containers hold.", labels=("resource",)
    )
    registered = GaugeMetricFamily(
        PREFIX + "registered",
        "1 while the resource is registered with the kubelet.",
        labels=("resource",),
    )
    for pool in view.pools:
        replicas = pool.resource.sharing.replicas
        healthy = sum(device.healthy for device in pool.devices)
        units.add_metric((pool.name, "healthy"), healthy * replicas)
        units.add_metric((pool.name, "unhealthy"), (len(pool.devices) - healthy) * replicas)
        if view.holders is not None:
            allocated.add_metric((pool.name,), len(view.holders.get(pool.name, {})))
    for resource, is_registered in view.registered.items():
        registered.add_metric((resource,), float(is_registered))
    yield units
    yield allocated
    yield registered
    unadvertised = len({i for unassigned in view.unassigned for i in unassigned.device_ids})
    documentation = "Devices that match a resource and cannot be advertised."
    yield _gauge("unadvertised_devices", documentation, unadvertised)


def _calls(view: View) -> Iterator[Metric]:
    by_resource = view.counters.resources.items()
    for name, documentation, count in _COUNTERS:
        counter = CounterMetricFamily(PREFIX + name, documentation, labels=("resource",))
        for resource, counters in by_resource:
            counter.add_metric((resource,), count(counters))
        yield counter
    rejections = CounterMetricFamily(
        PREFIX + "rejections",
        "Calls of the kubelet that were rejected.",
        labels=("call", "resource"),
    )
    for resource, counters in by_resource:
        for call, count in _REJECTIONS:
            rejections.add_metric((call, resource), count(counters))
    yield rejections
    for name, documentation, histogram_of in _DURATIONS:
        family = HistogramMetricFamily(
            f"{PREFIX}{name}_duration", documentation, labels=("resource",), unit="seconds"
        )
        for resource, counters in by_resource:
            histogram = histogram_of(counters)
            buckets = tuple(zip(_BOUNDS, accumulate(histogram.counts), strict=True))
            family.add_metric((resource,), buckets, histogram.sum)
        yield family


def _smi(view: View) -> Iterator[Metric]:
    """Nothing on a node without mx-smi, which is not an error."""
    counters = view.counters
    if not view.state.snapshot.smi.present:
        return
    yield _count("mx_smi_runs", "Runs of mx-smi.", counters.smi_runs)
    yield _count("mx_smi_failures", "Runs of mx-smi that failed.", counters.smi_failures)
    never = counters.smi_last_good is None
    yield _gauge(
        "mx_smi_last_success_timestamp_seconds",
        "Unix time of the last successful run of mx-smi; 0 for never.",
        0.0 if never else view.unix_time(counters.smi_last_good or 0.0),
    )


def _reloads(view: View) -> Iterator[Metric]:
    counters = view.counters
    yield _count("config_reloads", "Changed configurations that were applied.", counters.reloads)
    documentation = "Changed configurations that were invalid; the previous one stays in effect."
    yield _count("config_reload_failures", documentation, counters.reload_failures)
    yield _gauge(
        "config_last_reload_successful",
        "0 while the configuration in the file is not the one in effect.",
        counters.reload_last_ok is not False,
    )
