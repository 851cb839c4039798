"""Optional parts that read the plugin's state: metrics, labels, events, the condition of
the node. Each is imported only where it is turned on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .deviceplugin.context import NodeLabels
from .deviceplugin.manager import PluginManager
from .devices.monitor import Monitor
from .runtime.counters import Counters
from .runtime.watchable import Watchable
from .settings.settings import IntegrationSettings, ServeSettings

if TYPE_CHECKING:
    from .dra.mode import DraMode
    from .kubernetes.settings import ApiSettings
    from .metrics.address import Address
    from .metrics.dra import DraView
    from .podresources.client import Holder
    from .podresources.watcher import PodResourcesWatcher

#: Seconds that a loop of the daemon may stand still before it counts as hung.
STALLED = 30.0


@dataclass(frozen=True, slots=True)
class IntegrationContext:
    """The parts of the daemon that integrations read. `settings` are those of the moment."""

    monitor: Monitor
    plugin_manager: PluginManager
    counters: Counters
    pod_resources_watcher: PodResourcesWatcher | None
    settings: Callable[[], ServeSettings]
    dra: DraMode | None = None


async def run_integrations(
    settings: IntegrationSettings,
    context: IntegrationContext,
    api: ApiSettings | None,
    node_labels: NodeLabels | None,
    cordons: Watchable[str | None] | None = None,
) -> None:
    """Until it is cancelled. `api` is None unless something needs the API server;
    `node_labels`, if given, is kept to the labels of the node, and `cordons` to its
    annotation."""
    async with asyncio.TaskGroup() as tasks:
        if settings.metrics is not None:
            tasks.create_task(_metrics(settings.metrics, context))
        if settings.nfd_file is not None:
            tasks.create_task(_label_file(settings, context))
        if api is not None:
            tasks.create_task(_api(settings, context, api, node_labels, cordons))


async def _metrics(address: Address, context: IntegrationContext) -> None:
    from .metrics.exporter import Exporter
    from .metrics.heartbeat import Heartbeats

    def smi_limit() -> float:
        settings = context.settings()
        return STALLED + settings.smi_interval + settings.hardware.smi_timeout

    heartbeats = Heartbeats({"bus": STALLED, "mx-smi": smi_limit()})

    def heartbeat(loop: str) -> None:
        if loop == "mx-smi":
            heartbeats.expect(loop, smi_limit())  # it may have another pace from now on
        else:
            heartbeats.heartbeat(loop)

    context.monitor.heartbeat = heartbeat
    await Exporter(
        address,
        context.monitor,
        context.plugin_manager,
        context.counters,
        lambda: context.settings().health,
        heartbeats,
        context.pod_resources_watcher,
        _dra_view(context),
    ).run()


def _dra_view(context: IntegrationContext) -> Callable[[], DraView] | None:
    mode = context.dra
    if mode is None:
        return None
    from .dra.monitoring import view_of

    return lambda: view_of(mode)


async def _label_file(settings: IntegrationSettings, context: IntegrationContext) -> None:
    from .labels.facts import facts_of
    from .labels.follow import follow_labels
    from .labels.nfd import DEFAULT_FILE, FeatureFile

    file = FeatureFile(settings.nfd_file or DEFAULT_FILE)
    plugin_manager = context.plugin_manager
    await follow_labels(context.plugin_manager.state, lambda: facts_of(plugin_manager.pools), file)


async def _api(
    settings: IntegrationSettings,
    context: IntegrationContext,
    api: ApiSettings,
    node_labels: NodeLabels | None,
    cordons: Watchable[str | None] | None,
) -> None:
    from .kubernetes.features import run_api_features
    from .labels.facts import facts_of
    from .resources.device_ids import DeviceIds

    def holders() -> Mapping[str, Sequence[Holder]]:
        held = (
            {}
            if context.pod_resources_watcher is None
            else context.pod_resources_watcher.holders.value
        )
        # Of all of the node's devices: a pod keeps what is no longer advertised.
        found = DeviceIds(context.monitor.state.value.snapshot.devices).holders(held)
        for device_id, users in ({} if context.dra is None else context.dra.users()).items():
            who = (*found.get(device_id, ()), *(holder for holder, _ in users))
            found[device_id] = tuple(dict.fromkeys(who))
        return found

    await run_api_features(
        api,
        settings.api,
        context.plugin_manager.state,
        lambda: facts_of(context.plugin_manager.pools),
        holders,
        node_labels,
        cordons,
    )
