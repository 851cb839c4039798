"""Everything that the metrics are made from, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..devices.state import NodeState
from ..podresources.client import Holders
from ..resources.pools import ResourcePool, UnassignedDevices
from ..runtime.counters import Counters


@dataclass(frozen=True, slots=True)
class View:
    """`registered` tells of each resource's name whether the kubelet listens to us now.
    `holders` is None when nobody asks the kubelet, `holders_known` whether it answers.
    `temperature_limit` is that of the rule over-temperature, in C; None when it is off.
    `version` and `commit` are the plugin's own, as `version.Build` has them.
    `now` is of the clock that `tally` uses, `wall` the Unix time at that same moment.
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

    def unix_time(self, then: float) -> float:
        """A time of the monotonic clock as Unix time; to a tenth of a second, so that it
        stays the same from scrape to scrape while the clocks are being corrected."""
        return round(self.wall - (self.now - then), 1)
