"""The daemon: which tasks there are, and what flows between them."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from dataclasses import fields
from typing import TYPE_CHECKING

from . import __version__
from .api import KUBELET_CHECKPOINT
from .deviceplugin.kubelet_directory import KubeletDirectory
from .deviceplugin.manager import PluginManager
from .deviceplugin.plugin import RegistrationTimeouts
from .devices.monitor import Monitor, PollIntervals
from .hardware import Hardware
from .hardware.factory import create_hardware
from .integrations import IntegrationContext, NodeLabels, run_integrations
from .runtime.counters import Counters
from .runtime.log import set_up
from .runtime.resource_exhausted import log_resource_exhaustion_once
from .runtime.watchable import Watchable
from .settings.settings import ServeSettings

if TYPE_CHECKING:
    from .cdi.writer import SpecWriter
    from .kubernetes.settings import ApiSettings
    from .podresources.watcher import PodResourcesWatcher
    from .settings.reload import ConfigFile

log = logging.getLogger(__name__)

#: Settings that are looked at when the daemon starts, and then no more.
AT_START = frozenset(
    {"hardware", "kubelet_dir", "node_name", "pod_resources", "beside", "cdi_dir", "cdi_version"}
)
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
    ) -> None:
        self.settings = settings
        self._file = file
        self._api = api
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
        self.directory = KubeletDirectory(settings.kubelet_dir)
        self.plugin_manager = PluginManager(
            settings.plugin_config,
            self.monitor,
            hardware,
            self.directory,
            self.counters,
            timeouts or RegistrationTimeouts(),
            may_begin=self._may_begin,
            holders=lambda: (
                self.pod_resources_watcher.holders.value if self.pod_resources_watcher else {}
            ),
            allocated=lambda: (
                self.pod_resources_watcher.refresh_soon() if self.pod_resources_watcher else None
            ),
        )
        self.pod_resources_watcher: PodResourcesWatcher | None = None
        self._cdi: SpecWriter | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._kubelet: object = None

    @property
    def registered(self) -> bool:
        """Whether the kubelet listens for everything that is offered now."""
        plugin_manager = self.plugin_manager.current
        return bool(plugin_manager) and all(managed.registered for managed in plugin_manager)

    async def run(self) -> None:
        """Runs until it is cancelled; no task of it is left behind."""
        self.directory.listing.listen(self._count_kubelets)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._begin_holdings(tasks)
            tasks.create_task(self.directory.run())
            tasks.create_task(self.plugin_manager.run())
            tasks.create_task(self.monitor.run())
            parts = IntegrationContext(
                self.monitor,
                self.plugin_manager,
                self.counters,
                self.pod_resources_watcher,
                lambda: self.settings,
            )
            integrations = run_integrations(
                self.settings.integrations, parts, self._api, self.node_labels
            )
            tasks.create_task(integrations)
            if self._file is not None:
                tasks.create_task(self._follow_configuration(self._file))
                if self.node_labels is not None:
                    tasks.create_task(self._follow_labels(self._file, self.node_labels))

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
        are known nothing is offered: it might be the wrong thing."""
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
            self.plugin_manager.update()

    def apply(self, settings: ServeSettings) -> None:
        """Makes other settings hold from now on, as far as that is possible."""
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
        if settings.plugin_config != before.plugin_config:
            self.plugin_manager.change_plugin_config(settings.plugin_config)

    async def _begin_holdings(self, tasks: asyncio.TaskGroup) -> None:
        """Asks who holds what before anything is offered. Where the socket is not
        mounted, as with the vendor's manifest, nobody is asked, unless something is on
        whose reader would miss it."""
        socket, integrations = self.settings.pod_resources, self.settings.integrations
        wanted = integrations.metrics is not None or integrations.api.events
        if socket is None or not (wanted or socket.parent.is_dir()):
            return
        from .podresources.checkpoint import read_checkpoint
        from .podresources.watcher import PodResourcesWatcher

        # The record outlives its pods: it counts where the kubelet will be heard as well.
        record = self.settings.kubelet_dir / KUBELET_CHECKPOINT
        if socket.parent.is_dir():
            self.pod_resources_watcher = PodResourcesWatcher(
                socket, recall=lambda: read_checkpoint(record)
            )
        else:
            self.pod_resources_watcher = PodResourcesWatcher(socket)
        await self.pod_resources_watcher.refresh()
        self.pod_resources_watcher.holders.listen(self.plugin_manager.update)
        tasks.create_task(self.pod_resources_watcher.run())

    def _may_begin(self) -> bool:
        if self.node_labels is not None and self.node_labels.value is None:
            return False
        return self._ensure_cdi()

    def _ensure_cdi(self) -> bool:
        """Whether container engines know the names that containers would be given."""
        if not self.settings.plugin_config.device_list_strategy.uses_cdi or self._tasks is None:
            return True
        if self._cdi is None:
            from .cdi.directory import CdiDirectory
            from .cdi.writer import SpecWriter

            kind = self.settings.plugin_config.device_list_strategy.cdi_kind
            place = CdiDirectory(self.settings.cdi_dir, kind)
            self._cdi = SpecWriter(place, at_least=self.settings.cdi_version)
            self._cdi.ready.listen(self.plugin_manager.update)
            self._tasks.create_task(self._cdi.run(self.monitor.state))
        return self._cdi.ensure(self.monitor.state.value.snapshot)

    def _count_kubelets(self) -> None:
        kubelet = self.directory.listing.value.kubelet
        if kubelet is not None and kubelet != self._kubelet:
            self.counters.kubelet_starts += 1
            if self.pod_resources_watcher is not None:
                self.pod_resources_watcher.refresh_soon()  # the one before may not have told us
        self._kubelet = kubelet


def _changed(before: ServeSettings, after: ServeSettings, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


async def serve(
    settings: ServeSettings, file: ConfigFile | None = None, api: ApiSettings | None = None
) -> None:
    """Runs the daemon until SIGTERM or SIGINT, and then ends it in order."""
    log.info(
        "starting",
        extra={
            "version": __version__,
            "resources": [str(resource) for resource in settings.plugin_config.resources],
            "kubelet_dir": settings.kubelet_dir,
            "host_root": settings.hardware.host_root,
            "simulated_cards": len(settings.hardware.simulate),
        },
    )
    daemon = Daemon(settings, create_hardware(settings.hardware), file=file, api=api)
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
