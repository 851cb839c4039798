"""The plugins that the node calls for: one for each resource name that its devices have.

One loop compares what there should be with what runs. State of the node, configuration,
allocations and node labels only wake it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..allocation.allocate_result import AllocateResult, RefusalError
from ..allocation.allocator import PoolAllocator
from ..devices.inventory import Snapshot
from ..devices.state import NodeState
from ..hardware.types import Mount
from ..resources.conflicts import Holders, mark_claimed, mark_conflicts
from ..resources.device_ids import DeviceIds
from ..resources.plugin_config import PluginConfig, PluginSpec
from ..resources.pools import AdvertisedDevice, ResourcePool, UnassignedDevices, build_pools
from ..runtime.watchable import Watchable, set_within, waking
from .context import PluginContext
from .plugin import ResourcePlugin
from .service import Allocator

if TYPE_CHECKING:
    from ..cdi.writer import SpecWriter

log = logging.getLogger(__name__)

#: Seconds until a CDI spec that was removed, or could not be written, is written again.
CDI_PERIOD = 10.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that decides which plugins there are. `may_start`: the node's labels are
    known and container engines know the CDI names, as far as the configuration needs it.
    `claimed`: devices that claims have through DRA, with the reason."""

    state: NodeState
    config: PluginConfig = field(default_factory=PluginConfig)
    holders: Holders = field(default_factory=dict)
    may_start: bool = True
    claimed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WantedPlugins:
    """The pool of each plugin, in the order of the configuration, with conflicts marked;
    and the devices that no plugin has although a resource is meant for them."""

    pools: tuple[ResourcePool, ...] = ()
    unassigned: tuple[UnassignedDevices, ...] = ()


def wanted_plugins(inputs: Inputs, running: Collection[str] = ()) -> WantedPlugins:
    """What there should be while the plugins `running` run. Pure."""
    if not inputs.state.settled:
        return WantedPlugins()  # what only mx-smi knows could make a device unhealthy
    pools, unassigned = build_pools(inputs.state, inputs.config.resources)
    device_ids = DeviceIds(inputs.state.snapshot.devices)
    marked = [mark_conflicts(pool, inputs.holders, device_ids) for pool in pools]
    wanted = [mark_claimed(pool, inputs.claimed) for pool in marked]
    if inputs.config.monitoring is not None:
        from ..resources.monitoring import monitoring_pool

        names = [pool.name for pool in pools]
        monitoring = monitoring_pool(inputs.state, inputs.config.monitoring, names)
        wanted += [] if monitoring is None else [monitoring]
    return WantedPlugins(
        tuple(pool for pool in wanted if inputs.may_start or pool.name in running), unassigned
    )


class ManagedPlugin:
    """A plugin that runs. `spec` is what it serves now."""

    def __init__(self, pool: ResourcePool, config: PluginConfig, context: PluginContext) -> None:
        self.spec = Watchable(_spec_of(pool, config))
        allocator = _allocator(self.spec, context)
        self.plugin = ResourcePlugin(pool.name, self.spec, allocator, context)
        self.task: asyncio.Task[None] | None = None

    @property
    def pool(self) -> ResourcePool:
        return self.spec.value.pool

    @property
    def name(self) -> str:
        return self.pool.name

    @property
    def registered(self) -> bool:
        return self.plugin.registered

    def update(self, pool: ResourcePool, config: PluginConfig) -> None:
        before = self.spec.value
        after = _spec_of(pool, config, before)
        if after == before:
            return
        _log_cards(before.pool, pool)
        self.spec.set(after)
        if self.registered and after.advertised is not before.advertised:
            healthy = sum(device.healthy for device in after.advertised)
            fields = {"devices": len(after.advertised), "healthy": healthy}
            log.info("advertised", extra={"resource": self.name, **fields})

    def withdraw(self, delay: float) -> None:
        """An empty list goes first: without it a kubelet counts the devices for as long
        as it waits for a plugin to come back. The plugin ends `delay` seconds later."""
        log.info("withdrawn", extra={"resource": self.name})
        self.spec.set(replace(self.spec.value, advertised=()))
        if self.task is not None:
            asyncio.get_running_loop().call_later(delay, self.task.cancel)


def _allocator(spec: Watchable[PluginSpec], context: PluginContext) -> Allocator:
    if not spec.value.pool.monitoring:
        return _NodeAllocator(spec, context)
    from ..allocation.monitoring import MonitoringAllocator

    def sola() -> Sequence[Mount] | None:
        return context.hardware.sola_mounts() if spec.value.device_list_strategy.inject_sola else ()

    return MonitoringAllocator(context.monitor.state, lambda: spec.value.pool, sola)


class _NodeAllocator(PoolAllocator):
    """The allocator of one plugin, which may scan the bus, and wakes those who follow
    allocations."""

    def __init__(self, spec: Watchable[PluginSpec], context: PluginContext) -> None:
        super().__init__(
            context.monitor.state,
            lambda: spec.value.pool,
            lambda: spec.value.device_list_strategy,
            context.hardware.sola_mounts,
        )
        self._context = context
        self._spec = spec

    def allocate(self, ids: Collection[str]) -> AllocateResult:
        result = super().allocate(tuple(ids))
        self._grant(ids)
        if self._context.pod_resources is not None:
            self._context.pod_resources.refresh_soon()
        return result

    def _grant(self, ids: Collection[str]) -> None:
        """Raises RefusalError for what a claim has had for a moment only."""
        claimed, grants = self._context.claimed, self._context.grants
        if claimed is None or grants is None:
            return
        behind = DeviceIds(self._context.monitor.state.value.snapshot.devices).behind
        device_ids = [device_id for one in ids for device_id in behind(one)]
        why = [f"{i} is {claimed.value[i]}" for i in device_ids if i in claimed.value]
        if why:
            raise RefusalError("; ".join(dict.fromkeys(why)))
        grants.add(self._spec.value.pool.name, device_ids)

    async def check(self, ids: Collection[str]) -> None:
        """Scans the bus first. Raises RefusalError when they could not be given now; a
        container that has a cordoned device keeps it, and may start anew."""
        await self._context.monitor.rescan()
        self.allocate_by(self._context.monitor.state.value.without_cordons(), tuple(ids))


class PluginManager:
    """Runs the wanted plugins while `run` is not cancelled.

    `changed` has the names of those that run. `state` is the node's state that they were
    made from: whoever follows it finds `pools` in agreement with it.
    """

    def __init__(self, plugin_config: PluginConfig, context: PluginContext) -> None:
        self._config = plugin_config
        self._context = context
        self._wake = asyncio.Event()
        self._plugins: dict[str, ManagedPlugin] = {}
        self._wanted = WantedPlugins()
        self._cdi: SpecWriter | None = None
        self._logged_idle = False
        self._logged_conflicts: frozenset[str] = frozenset()
        self.changed: Watchable[tuple[str, ...]] = Watchable(())
        self.state: Watchable[NodeState] = Watchable(NodeState())

    @property
    def current(self) -> tuple[ManagedPlugin, ...]:
        """In the order in which they were started."""
        return tuple(self._plugins.values())

    @property
    def pools(self) -> tuple[ResourcePool, ...]:
        """Those of devices: what the monitoring resource gives is not counted."""
        return tuple(m.pool for m in self._plugins.values() if not m.pool.monitoring)

    @property
    def plugin_config(self) -> PluginConfig:
        return self._config

    def change_plugin_config(self, plugin_config: PluginConfig) -> None:
        """Applies another configuration. Names that stay keep their registration."""
        self._config = plugin_config
        self._wake.set()

    async def run(self) -> None:
        context = self._context
        watched: list[Watchable[Any]] = [context.monitor.state]
        if context.pod_resources is not None:
            watched.append(context.pod_resources.holders)
        if context.node_labels is not None:
            watched.append(context.node_labels)
        if context.claimed is not None:
            watched.append(context.claimed)
        async with asyncio.TaskGroup() as tasks:
            with waking(self._wake, *watched):
                while True:
                    self._wake.clear()
                    inputs = await self._inputs()
                    self._apply(wanted_plugins(inputs, self._plugins), inputs, tasks)
                    await set_within(self._wake, None if self._cdi is None else CDI_PERIOD)

    async def _inputs(self) -> Inputs:
        context, config, state = self._context, self._config, self._context.monitor.state.value
        labels_known = context.node_labels is None or context.node_labels.value is not None
        engines_know = await self._ensure_cdi(config, state.snapshot)
        holders = {} if context.pod_resources is None else context.pod_resources.holders.value
        claimed = {} if context.claimed is None else context.claimed.value
        return Inputs(state, config, holders, labels_known and engines_know, claimed)

    async def _ensure_cdi(self, config: PluginConfig, snapshot: Snapshot) -> bool:
        """Whether container engines know the names that containers would be given."""
        strategy = config.device_list_strategy
        if self._cdi is None:
            if not strategy.uses_cdi:
                return True
            from ..cdi.directory import CdiDirectory
            from ..cdi.writer import SpecWriter

            place = CdiDirectory(self._context.cdi_dir, strategy.cdi_kind)
            self._cdi = SpecWriter(place, at_least=self._context.cdi_version)
        if not self._cdi.in_force(snapshot):
            await asyncio.to_thread(self._cdi.ensure, snapshot)
        return not strategy.uses_cdi or self._cdi.in_force(snapshot)

    def _apply(self, wanted: WantedPlugins, inputs: Inputs, tasks: asyncio.TaskGroup) -> None:
        """Makes the plugins that run those that are wanted."""
        self._log(wanted, inputs.state)
        self._wanted = wanted
        names = {pool.name for pool in wanted.pools}
        for name in [name for name in self._plugins if name not in names]:
            self._plugins.pop(name).withdraw(self._context.timeouts.withdrawal)
        for pool in wanted.pools:
            managed = self._plugins.get(pool.name)
            if managed is not None:
                managed.update(pool, inputs.config)
                continue
            managed = self._plugins[pool.name] = ManagedPlugin(pool, inputs.config, self._context)
            managed.task = tasks.create_task(managed.plugin.run())
        if inputs.state is not self.state.value:
            self.state.set(inputs.state)
        if (running := tuple(self._plugins)) != self.changed.value:
            self.changed.set(running)

    def _log(self, wanted: WantedPlugins, state: NodeState) -> None:
        if state.settled and not state.snapshot.devices and not self._logged_idle:
            self._logged_idle = True
            log.info("no-devices", extra={"effect": "nothing is advertised until one appears"})
        conflicts = {
            device.held: {"resource": pool.name, "device": device.id, "why": device.held}
            for pool in wanted.pools
            for device in pool.devices
            if device.held
        }
        for why in conflicts.keys() - self._logged_conflicts:
            effect = "not given out until then"
            log.warning("allocation-conflict", extra={**conflicts[why], "effect": effect})
        self._logged_conflicts = frozenset(conflicts)
        for group in wanted.unassigned:
            if group not in self._wanted.unassigned:
                log.warning("not-advertised", extra={"devices": group.device_ids, "why": group.why})


def _spec_of(
    pool: ResourcePool, config: PluginConfig, before: PluginSpec | None = None
) -> PluginSpec:
    """The list of `before` is kept where it has not changed: it may have thousands of
    replicas."""
    same = before is not None and _same(before.pool, pool)
    advertised = before.advertised if before is not None and same else pool.advertised()
    return PluginSpec(pool, advertised, config.device_list_strategy, config.options)


def _same(one: ResourcePool, other: ResourcePool) -> bool:
    """Whether both have the same advertised devices."""
    replicas = one.resource.sharing.replicas, other.resource.sharing.replicas
    return one.devices == other.devices and replicas[0] == replicas[1]


def _log_cards(before: ResourcePool, after: ResourcePool) -> None:
    """Cards whose health changed; the devices' own lines have the reasons."""
    if after.resource.granularity != "card":
        return
    known: dict[str, AdvertisedDevice] = {device.id: device for device in before.devices}
    for device in after.devices:
        was = known.get(device.id)
        if was is not None and was.healthy != device.healthy:
            event = "card-healthy" if device.healthy else "card-unhealthy"
            fields = {"resource": after.name, "card": device.id, "devices": device.device_ids}
            log.log(logging.INFO if device.healthy else logging.ERROR, event, extra=fields)
