"""Metrics as a part of the daemon: what it reads, and what it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..resources.pools import divide
from ..runtime.version import build
from .address import Address
from .heartbeat import Pulse
from .server import MetricsServer
from .view import View

if TYPE_CHECKING:
    from ..deviceplugin.manager import Offers
    from ..devices.health.policy import HealthPolicy
    from ..devices.monitor import Monitor
    from ..podresources.watcher import Holdings
    from ..runtime.counters import Tally


class Exporter:
    """Serves what the daemon's parts say at the moment of a scrape. It reads only what
    is in memory: no scrape waits for mx-smi, the bus or the kubelet."""

    def __init__(
        self,
        address: Address,
        monitor: Monitor,
        offers: Offers,
        tally: Tally,
        policy: Callable[[], HealthPolicy],
        pulse: Pulse,
        holdings: Holdings | None = None,
    ) -> None:
        self._monitor = monitor
        self._offers = offers
        self._tally = tally
        self._policy = policy
        self._holdings = holdings
        self._build = build()
        self.server = MetricsServer(address, self.view, pulse)

    async def run(self) -> None:
        """Until it is cancelled."""
        await self.server.run()

    def view(self) -> View:
        policy, rule, holdings = self._policy(), "over-temperature", self._holdings
        state = self._monitor.state.value
        return View(
            state=state,
            tally=self._tally,
            now=time.monotonic(),
            wall=time.time(),
            divisions=self._offers.divisions,
            leftovers=divide(state, self._offers.terms.resources)[1],
            registered={offer.name: offer.registered for offer in self._offers.current},
            holders=None if holdings is None else holdings.holders.value,
            holders_known=holdings is not None and holdings.error is None,
            temperature_limit=None if rule in policy.off else policy.limits[rule][0],
            version=self._build.version,
            commit=self._build.commit,
        )
