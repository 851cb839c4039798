"""Metrics as one task of the daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..resources.pools import build_pools
from ..runtime.version import build
from .address import Address
from .heartbeat import Heartbeats
from .server import MetricsServer
from .view import View

if TYPE_CHECKING:
    from ..deviceplugin.manager import PluginManager
    from ..devices.health.policy import HealthPolicy
    from ..devices.monitor import Monitor
    from ..podresources.watcher import PodResourcesWatcher
    from ..runtime.counters import Counters
    from .dra import DraView


class Exporter:
    """Serves the state of the daemon at the time of a scrape. It reads memory only: no
    scrape waits for mx-smi, the bus or the kubelet."""

    def __init__(
        self,
        address: Address,
        monitor: Monitor,
        plugin_manager: PluginManager,
        counters: Counters,
        policy: Callable[[], HealthPolicy],
        heartbeats: Heartbeats,
        pod_resources_watcher: PodResourcesWatcher | None = None,
        dra: Callable[[], DraView] | None = None,
    ) -> None:
        self._monitor = monitor
        self._plugins = plugin_manager
        self._counters = counters
        self._policy = policy
        self._pod_resources = pod_resources_watcher
        self._dra = dra
        self._build = build()
        self.server = MetricsServer(address, self.view, heartbeats)

    async def run(self) -> None:
        """Until it is cancelled."""
        await self.server.run()

    def view(self) -> View:
        policy, rule, watcher = self._policy(), "over-temperature", self._pod_resources
        state = self._monitor.state.value
        return View(
            state=state,
            counters=self._counters,
            now=time.monotonic(),
            wall=time.time(),
            pools=self._plugins.pools,
            unassigned=build_pools(state, self._plugins.plugin_config.resources)[1],
            registered={managed.name: managed.registered for managed in self._plugins.current},
            holders=None if watcher is None else watcher.holders.value,
            holders_known=watcher is not None and watcher.error is None,
            temperature_limit=None if rule in policy.off else policy.limits[rule][0],
            version=self._build.version,
            commit=self._build.commit,
            dra=None if self._dra is None else self._dra(),
        )
