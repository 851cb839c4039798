"""The daemon: which tasks there are, and what flows between them."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

from . import __version__
from .allocation.allocator import NodeAllocator
from .hardware import Hardware
from .hardware.choose import choose_hardware
from .kubelet.directory import KubeletDirectory
from .kubelet.plugin import Patience, ResourcePlugin
from .kubelet.service import Advertisement
from .latest import Latest
from .monitor import Monitor, Pace
from .node import NodeState
from .resources import advertise
from .settings import ServeSettings

log = logging.getLogger(__name__)


class Daemon:
    """Everything that `serve` runs, with its parts in reach for those who watch."""

    def __init__(
        self,
        settings: ServeSettings,
        hardware: Hardware,
        pace: Pace | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.settings = settings
        self.monitor = Monitor(
            hardware, settings.health, time.monotonic, pace or Pace(smi=settings.smi_interval)
        )
        self.directory = KubeletDirectory(settings.kubelet_dir)
        self.advertised: Latest[Advertisement] = Latest(())
        self.plugin = ResourcePlugin(
            settings.resource,
            self.directory,
            self.advertised,
            NodeAllocator(self.monitor.state, settings.placement),
            patience=patience or Patience(),
        )

    async def run(self) -> None:
        """Runs until it is cancelled; no task of it is left behind."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.directory.run())
            tasks.create_task(self.monitor.run())
            tasks.create_task(self._advertise())
            tasks.create_task(self.plugin.run())

    async def _advertise(self) -> None:
        version, told_idle = -1, False
        while True:
            state, version = await self.monitor.state.after(version)
            # Before mx-smi has been heard, a sick device could pass for healthy.
            if not state.settled:
                continue
            if not state.snapshot.devices and not told_idle:
                told_idle = True
                log.info("no-devices", extra={"effect": "nothing is advertised until one appears"})
            self._advertise_state(state)

    def _advertise_state(self, state: NodeState) -> None:
        advertised = advertise(state)
        if advertised != self.advertised.value:
            self.advertised.set(advertised)
            if self.plugin.registered:
                log.info(
                    "advertised",
                    extra={
                        "resource": self.settings.resource,
                        "devices": len(advertised),
                        "healthy": sum(device.healthy for device in advertised),
                    },
                )


async def serve(settings: ServeSettings) -> None:
    """Runs the daemon until SIGTERM or SIGINT, and then ends it in order."""
    log.info(
        "starting",
        extra={
            "version": __version__,
            "resource": settings.resource,
            "kubelet_dir": settings.kubelet_dir,
            "host_root": settings.hardware.host_root,
            "simulated_cards": len(settings.hardware.simulate),
        },
    )
    daemon = Daemon(settings, choose_hardware(settings.hardware))
    running = asyncio.ensure_future(daemon.run())
    loop = asyncio.get_running_loop()

    def stop(received: signal.Signals) -> None:
        log.info("stopping", extra={"signal": received.name})
        running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await running
    except asyncio.CancelledError:
        log.info("stopped")
