"""The daemon: its tasks, and what flows between them."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .allocation.grants import Grants
from .api import KUBELET_CHECKPOINT
from .deviceplugin.context import NodeLabels, PluginContext
from .deviceplugin.kubelet_directory import KubeletDirectory
from .deviceplugin.manager import PluginManager
from .deviceplugin.registration import RegistrationTimeouts
from .devices.cordon_file import CordonFile
from .devices.cordons import Cordons
from .devices.fault_record import FaultFile, FaultRecorder
from .devices.monitor import Monitor, PollIntervals
from .hardware import Hardware
from .hardware.factory import create_hardware
from .integrations import IntegrationContext, run_integrations
from .resources.pools import Resource, devices_of
from .runtime.counters import Counters
from .runtime.log import set_up
from .runtime.resource_exhausted import log_resource_exhaustion_once
from .runtime.watchable import Watchable
from .settings.settings import ServeSettings

if TYPE_CHECKING:
    from .dra.mode import DraMode
    from .kubernetes.settings import ApiSettings
    from .podresources.watcher import PodResourcesWatcher
    from .settings.reload import ConfigFile

log = logging.getLogger(__name__)

#: Settings that are read when the daemon starts, and not again.
AT_START = frozenset(
    {
        "hardware",
        "kubelet_dir",
        "node_name",
        "pod_resources",
        "integrations",
        "cdi_dir",
        "cdi_version",
        "plugins_registry",
        "dra_evict",
        "state_dir",
    }
)
POD_RESOURCES = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
_LATER = "these take effect at the plugin's next start"


class Daemon:
    """Everything that `serve` runs, with its parts in reach for those who watch."""

    def __init__(
        self,
        settings: ServeSettings,
        hardware: Hardware,
        intervals: PollIntervals | None = None,
        timeouts: RegistrationTimeouts | None = None,
        file: ConfigFile | None = None,
        api: ApiSettings | None = None,
        *,
        dra: bool = False,
    ) -> None:
        self.settings = settings
        self._file = file
        self._api = api
        self._hardware = hardware
        by_label = file is not None and file.configuration.needs_labels
        self.node_labels: NodeLabels | None = Watchable(None) if by_label else None
        self.counters = Counters()
        if file is not None:
            file.counters = self.counters
        self.monitor = Monitor(
            hardware,
            settings.health,
            time.monotonic,
            intervals or PollIntervals(smi=settings.smi_interval),
            self.counters,
        )
        self.cordon_annotation: Watchable[str | None] | None = None
        if settings.integrations.api.cordons:
            self.cordon_annotation = Watchable(None)
        self.cordons = Cordons(
            self.monitor,
            CordonFile(settings.state_dir),
            settings.cordon,
            self.cordon_annotation,
        )
        self.fault_recorder = FaultRecorder(self.monitor, FaultFile(settings.state_dir))
        self.directory = KubeletDirectory(settings.kubelet_dir)
        self.pod_resources_watcher = _pod_resources_watcher(settings, dra=dra)
        self.dra_resources: Watchable[tuple[Resource, ...]] = Watchable(settings.dra_resources)
        self.claimed: Watchable[Mapping[str, str]] = Watchable({})
        self.grants = Grants()
        context = PluginContext(
            self.monitor,
            hardware,
            self.directory,
            self.counters,
            timeouts or RegistrationTimeouts(),
            self.pod_resources_watcher,
            self.node_labels,
            settings.cdi_dir,
            settings.cdi_version,
            self.claimed if dra else None,
            self.grants if dra else None,
        )
        self.plugin_manager = PluginManager(settings.advertised, context)
        self.dra_mode = self._dra(api) if dra and api is not None else None

    @property
    def registered(self) -> bool:
        """Whether the kubelet listens for everything that is advertised now."""
        plugins = self.plugin_manager.current
        return bool(plugins) and all(managed.registered for managed in plugins)

    async def run(self) -> None:
        """Runs until it is cancelled; no task of it is left behind."""
        # Before anything is advertised: what must not be given out.
        self.cordons.read()
        self.fault_recorder.restore()
        async with asyncio.TaskGroup() as tasks:
            if self.pod_resources_watcher is not None:
                # Before anything is advertised: who holds what as something else.
                await self.pod_resources_watcher.refresh()
                tasks.create_task(self.pod_resources_watcher.run())
            tasks.create_task(self.directory.run())
            tasks.create_task(self._follow_kubelet())
            tasks.create_task(self.plugin_manager.run())
            tasks.create_task(self.monitor.run())
            tasks.create_task(self.cordons.run())
            tasks.create_task(self.fault_recorder.run())
            context = IntegrationContext(
                self.monitor,
                self.plugin_manager,
                self.counters,
                self.pod_resources_watcher,
                lambda: self.settings,
                self.dra_mode,
            )
            integrations = run_integrations(
                self.settings.integrations,
                context,
                self._api,
                self.node_labels,
                self.cordon_annotation,
            )
            tasks.create_task(integrations)
            if self.dra_mode is not None:
                tasks.create_task(self.dra_mode.run())
            if self._file is not None:
                tasks.create_task(self._follow_configuration(self._file))
                if self.node_labels is not None:
                    tasks.create_task(self._follow_labels(self._file, self.node_labels))

    def _dra(self, api: ApiSettings) -> DraMode:
        from .dra.context import NodeDriverContext
        from .dra.mode import DraMode

        watcher, settings = self.pod_resources_watcher, self.settings
        if watcher is None:
            raise AssertionError  # made wherever `dra` is
        strategy = settings.plugin_config.device_list_strategy
        context = NodeDriverContext(
            api=api,
            monitor=self.monitor,
            hardware=self._hardware,
            pod_resources=watcher,
            registry=settings.plugins_registry,
            cdi_dir=settings.cdi_dir,
            cdi_kind=strategy.cdi_kind,
            cdi_version=settings.cdi_version,
            inject_sola=strategy.inject_sola,
            grants=self.grants,
            evict=settings.dra_evict,
            chips=lambda state: devices_of(state, self.dra_resources.value),
        )
        return DraMode(context, self.dra_resources, self.claimed)

    async def _follow_configuration(self, file: ConfigFile) -> None:
        async for settings in file.changes():
            if self.pod_resources_watcher is not None:
                await self.pod_resources_watcher.refresh()  # for what must not be given out anew
            self.apply(settings)
            if file.configuration.needs_labels and self.node_labels is None:
                extra = {"settings": ["nodes[].match.labels"], "effect": _LATER}
                log.warning("configuration-needs-restart", extra=extra)

    async def _follow_labels(self, file: ConfigFile, labels: NodeLabels) -> None:
        """Chooses the sections for the node anew whenever its labels change. Until they
        are known nothing is advertised: it might be the wrong thing."""
        if labels.value is None:
            log.info("waiting-for-node-labels", extra={"node": self.settings.node_name})
        version = labels.version if labels.value is None else -1
        while True:
            known, version = await labels.after(version)
            if known is None:
                continue
            settings = file.for_labels(known)
            if settings is not None:
                self.apply(settings)

    def apply(self, settings: ServeSettings) -> None:
        """Puts other settings in force, as far as that is possible without a restart."""
        before, self.settings = self.settings, settings
        names = [f.name for f in fields(settings) if _changed(before, settings, f.name)]
        later = [name for name in names if name in AT_START]
        log.info("configuration-applied", extra={"changed": names})
        if later:
            extra = {"settings": later, "effect": _LATER}
            log.warning("configuration-needs-restart", extra=extra)
        if settings.log != before.log:
            set_up(settings.log.form, settings.log.level)
        if (settings.health, settings.smi_interval) != (before.health, before.smi_interval):
            self.monitor.change(settings.health, settings.smi_interval)
        if settings.cordon != before.cordon:
            self.cordons.configure(settings.cordon)
        if settings.advertised != before.advertised:
            self.plugin_manager.change_plugin_config(settings.advertised)
        if settings.dra_resources != before.dra_resources:
            self.dra_resources.set(settings.dra_resources)

    async def _follow_kubelet(self) -> None:
        version, known = -1, None
        while True:
            listing, version = await self.directory.listing.after(version)
            if listing.kubelet is not None and listing.kubelet != known:
                self.counters.kubelet_starts += 1
                if self.pod_resources_watcher is not None:
                    self.pod_resources_watcher.refresh_soon()  # there may be an answer now
            known = listing.kubelet


def _pod_resources_watcher(
    settings: ServeSettings, *, dra: bool = False
) -> PodResourcesWatcher | None:
    """None where the socket is not mounted, as with the vendor's manifest, unless something
    is on whose reader would miss it."""
    socket, integrations = settings.pod_resources, settings.integrations
    if dra and socket is None:
        socket = POD_RESOURCES
    wanted = dra or integrations.metrics is not None or integrations.api.events
    if socket is None or not (wanted or socket.parent.is_dir()):
        return None
    from .podresources.checkpoint import read_checkpoint
    from .podresources.watcher import PodResourcesWatcher

    if not socket.parent.is_dir():
        return PodResourcesWatcher(socket)
    # The kubelet's own record outlives its pods: it counts only where the kubelet, too,
    # will answer.
    record = settings.kubelet_dir / KUBELET_CHECKPOINT
    return PodResourcesWatcher(socket, recall=lambda: read_checkpoint(record))


def _changed(before: ServeSettings, after: ServeSettings, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


async def serve(
    settings: ServeSettings,
    file: ConfigFile | None = None,
    api: ApiSettings | None = None,
    *,
    dra: bool = False,
) -> None:
    """Runs the daemon until SIGTERM or SIGINT, and then ends it in order. `dra`: devices are
    given out through DRA, may be at another time, or were and claims have some still."""
    log.info(
        "starting",
        extra={
            "version": __version__,
            "resources": [str(resource) for resource in settings.advertised.resources],
            **({"dra": bool(settings.dra_resources)} if dra else {}),
            "kubelet_dir": settings.kubelet_dir,
            "host_root": settings.hardware.host_root,
            "simulated_cards": len(settings.hardware.simulate),
        },
    )
    daemon = Daemon(settings, create_hardware(settings.hardware), file=file, api=api, dra=dra)
    running = asyncio.ensure_future(daemon.run())
    loop = asyncio.get_running_loop()
    log_resource_exhaustion_once(loop)

    def stop(received: signal.Signals) -> None:
        log.info("stopping", extra={"signal": received.name})
        running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await running
    except asyncio.CancelledError:
        log.info("stopped")
