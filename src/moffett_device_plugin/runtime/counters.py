"""What the daemon counts and times as it works. Numbers only: metrics reads them when
it is on, and nothing is imported or computed for it when it is off."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

#: Upper bounds in seconds.
SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Histogram:
    """Observations by bucket: `counts[i]` of those up to `SECONDS[i]` and above the
    bound before; the last is of those above all bounds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds


@dataclass(slots=True)
class ResourceCounters:
    """Of one resource since the daemon started."""

    allocations: int = 0  # containers that were given their devices
    allocation_rejections: int = 0
    placement_rejections: int = 0  # preferences that were answered without a placement
    pre_start_rejections: int = 0
    registrations: int = 0  # that a kubelet accepted
    registration_failures: int = 0  # that a kubelet which was there refused
    list_and_watch_updates: int = 0
    allocate_seconds: Histogram = field(default_factory=Histogram)
    placement_seconds: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Counters:
    """Of the whole daemon. Times are of the monotonic clock, None for never."""

    resources: dict[str, ResourceCounters] = field(default_factory=dict)
    kubelet_starts: int = 0  # new kubelet sockets seen, the first one too
    smi_runs: int = 0
    smi_failures: int = 0
    smi_last_good: float | None = None
    reloads: int = 0
    reload_failures: int = 0
    reload_last_ok: bool | None = None  # None: nothing was reloaded yet

    def of(self, resource: str) -> ResourceCounters:
        return self.resources.setdefault(resource, ResourceCounters())
