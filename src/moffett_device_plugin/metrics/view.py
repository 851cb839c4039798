"""The input of the metrics: a consistent view of the daemon at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..devices.state import NodeState
from ..podresources.client import Holders
from ..resources.pools import ResourcePool, UnassignedDevices
from ..runtime.counters import Counters
from .dra import DraView


@dataclass(frozen=True, slots=True)
class View:
    """`registered`: by resource name, whether it is registered with the kubelet now.
    `holders` is None when the pod-resources socket is not used; `holders_known` is False
    while the kubelet does not answer there. `temperature_limit` is that of the rule
    over-temperature in degrees Celsius, None when the rule is off. `version` and `commit`
    are those of `version.Build`. `now` is a time of the monotonic clock that the counters
    use, `wall` the Unix time at the same moment. `dra` is None where DRA is not used.
    """

    state: NodeState
    counters: Counters
    now: float
    wall: float
    pools: tuple[ResourcePool, ...] = ()
    unassigned: tuple[UnassignedDevices, ...] = ()
    registered: Mapping[str, bool] = field(default_factory=dict)
    holders: Holders | None = None
    holders_known: bool = False
    temperature_limit: float | None = None
    version: str = ""
    commit: str = ""
    dra: DraView | None = None

    def unix_time(self, then: float) -> float:
        """A time of the monotonic clock as Unix time; to a tenth of a second, so that it
        stays the same from scrape to scrape while NTP adjusts the clock."""
        return round(self.wall - (self.now - then), 1)
