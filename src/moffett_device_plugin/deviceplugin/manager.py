"""What the node offers to the kubelet: one plugin for each name that its devices have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from ..allocation.allocator import PoolAllocator
from ..devices.monitor import Monitor
from ..hardware import Hardware
from ..resources.conflicts import Holders, mark_conflicts
from ..resources.plugin_config import PluginConfig
from ..resources.pools import AdvertisedDevice, ResourcePool, UnassignedDevices, build_pools
from ..runtime.counters import Counters
from ..runtime.watchable import Watchable
from .kubelet_directory import KubeletDirectory
from .plugin import RegistrationTimeouts, ResourcePlugin
from .service import AdvertisedDevices

log = logging.getLogger(__name__)


class ManagedPlugin:
    """One name: `division` is what it stands for now, `advertised` its units."""

    def __init__(self, pool: ResourcePool, make: Callable[[ManagedPlugin], ResourcePlugin]) -> None:
        self.pool = pool
        self.advertised: Watchable[AdvertisedDevices] = Watchable(())
        self.plugin = make(self)
        self.task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.pool.name

    @property
    def registered(self) -> bool:
        return self.plugin.registered

    def update(self, pool: ResourcePool) -> None:
        before = self.pool
        self.pool = pool
        if self.advertised.version and _same(before, pool):
            return
        self.advertised.set(pool.advertised())
        if self.registered:
            advertised = self.advertised.value
            log.info(
                "advertised",
                extra={
                    "resource": self.name,
                    "devices": len(advertised),
                    "healthy": sum(unit.healthy for unit in advertised),
                },
            )


def _same(one: ResourcePool, other: ResourcePool) -> bool:
    """Whether both have the same units: cheaper than to make all replicas and see."""
    replicas = one.resource.sharing.replicas, other.resource.sharing.replicas
    return one.devices == other.devices and replicas[0] == replicas[1]


class PluginManager:
    """Keeps an offer for every name while `run` is not cancelled; `terms` may change.

    `may_begin` is asked before anything is advertised: while it says no, no name
    appears that was not there before. `holders` tells who holds what, as the kubelet
    says it; `allocated` is called when that is about to change.
    """

    def __init__(
        self,
        plugin_config: PluginConfig,
        monitor: Monitor,
        hardware: Hardware,
        directory: KubeletDirectory,
        counters: Counters,
        timeouts: RegistrationTimeouts,
        may_begin: Callable[[], bool] = lambda: True,
        holders: Callable[[], Holders] = dict,
        allocated: Callable[[], object] = lambda: None,
    ) -> None:
        self._plugin_config = plugin_config
        self._monitor = monitor
        self._hardware = hardware
        self._directory = directory
        self._counters = counters
        self._timeouts = timeouts
        self._may_begin = may_begin
        self._holders = holders
        self._allocated = allocated
        self._told_held: frozenset[str] = frozenset()
        self._plugins: dict[str, ManagedPlugin] = {}
        self._unassigned: tuple[UnassignedDevices, ...] = ()
        self._tasks: asyncio.TaskGroup | None = None
        self._told_idle = False
        self.changed: Watchable[tuple[str, ...]] = Watchable(())  # the names

    @property
    def current(self) -> Sequence[ManagedPlugin]:
        """In the order of the configuration."""
        return tuple(self._plugins.values())

    @property
    def pools(self) -> tuple[ResourcePool, ...]:
        return tuple(managed.pool for managed in self._plugins.values())

    @property
    def plugin_config(self) -> PluginConfig:
        return self._plugin_config

    def change_plugin_config(self, plugin_config: PluginConfig) -> None:
        """Applies other terms here and now. Names that stay keep their registration."""
        self._plugin_config = plugin_config
        self.update()
        for managed in self._plugins.values():
            managed.plugin.look_again()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            # Not left to a task: whoever asks next finds names and state in agreement.
            self._monitor.state.listen(self.update)
            try:
                self.update()
                await asyncio.Event().wait()
            finally:
                self._monitor.state.forget(self.update)
                self._tasks = None

    def update(self) -> None:
        """Makes the offers what the node's newest state and the terms call for."""
        state = self._monitor.state.value
        # Before mx-smi has been heard, a sick device could pass for healthy.
        if not state.settled or self._tasks is None:
            return
        if not state.snapshot.devices and not self._told_idle:
            self._told_idle = True
            log.info("no-devices", extra={"effect": "nothing is advertised until one appears"})
        pools, unassigned = build_pools(state, self._plugin_config.resources)
        holders, devices = self._holders(), state.snapshot.devices
        pools = tuple(mark_conflicts(pool, holders, devices) for pool in pools)
        self._log_conflicts(pools)
        self._log_unassigned(unassigned)
        may_begin = self._may_begin()
        wanted = {pool.name for pool in pools}
        for name in [name for name in self._plugins if name not in wanted]:
            self._withdraw(self._plugins.pop(name))
        for pool in pools:
            managed = self._plugins.get(pool.name)
            if managed is None:
                if not may_begin:
                    continue
                managed = self._plugins[pool.name] = ManagedPlugin(pool, self._plugin_for)
                managed.task = self._tasks.create_task(managed.plugin.run())
            else:
                _log_cards(managed.pool, pool)
            managed.update(pool)
        names = tuple(self._plugins)
        if names != self.changed.value:
            self.changed.set(names)

    def _plugin_for(self, managed: ManagedPlugin) -> ResourcePlugin:
        allocator = PoolAllocator(
            self._monitor.state,
            lambda: managed.pool,
            lambda: self._plugin_config.device_list_strategy,
            self._hardware.sola_mounts,
            self._monitor.rescan,
        )
        return ResourcePlugin(
            managed.name,
            self._directory,
            managed.advertised,
            allocator,
            options=lambda: self._plugin_config.options,
            counters=self._counters.of(managed.name),
            allocated=self._allocated,
            timeouts=self._timeouts,
        )

    def _withdraw(self, managed: ManagedPlugin) -> None:
        """An empty list goes first: without it a kubelet counts the devices for as long
        as it waits for a plugin to come back."""
        log.info("withdrawn", extra={"resource": managed.name})
        managed.advertised.set(())
        if managed.task is not None:
            # The list leaves in this turn of the loop; the plugin ends in a later one.
            asyncio.get_running_loop().call_later(self._timeouts.withdrawal, managed.task.cancel)

    def _log_conflicts(self, pools: tuple[ResourcePool, ...]) -> None:
        held = {
            unit.held: (pool.name, unit.id) for pool in pools for unit in pool.devices if unit.held
        }
        for why in held.keys() - self._told_held:
            resource, unit_id = held[why]
            fields = {"resource": resource, "device": unit_id, "why": why}
            log.warning("held-elsewhere", extra={**fields, "effect": "not given out until then"})
        self._told_held = frozenset(held)

    def _log_unassigned(self, unassigned: tuple[UnassignedDevices, ...]) -> None:
        for group in unassigned:
            if group not in self._unassigned:
                log.warning("not-advertised", extra={"devices": group.device_ids, "why": group.why})
        self._unassigned = unassigned


def _log_cards(before: ResourcePool, after: ResourcePool) -> None:
    """Cards that became sick or well; the devices' own lines have the reasons."""
    if after.resource.granularity != "card":
        return
    known = {unit.id: unit for unit in before.devices}
    for unit in after.devices:
        was: AdvertisedDevice | None = known.get(unit.id)
        if was is not None and was.healthy != unit.healthy:
            event = "card-healthy" if unit.healthy else "card-unhealthy"
            fields = {"resource": after.name, "card": unit.id, "devices": unit.device_ids}
            log.log(logging.INFO if unit.healthy else logging.ERROR, event, extra=fields)
