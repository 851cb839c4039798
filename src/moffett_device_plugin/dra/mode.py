"""The driver's life as the node changes between the device plugin API and DRA.

In DRA the driver runs, and its devices are published. Back in the device plugin API they
are not, and the driver stays for the claims that still have devices: without it their pods
could not end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from ..kubernetes.dra import DraClient
from ..podresources.client import Holder
from ..resources.pools import Resource
from ..runtime.kept_running import kept_running
from ..runtime.watchable import Watchable, set_within, waking
from .context import TIMES, DriverTimes, NodeDriverContext
from .driver import NodeDriver
from .held import claimed, uses_by_chip
from .publishing import Publisher, PublisherContext

log = logging.getLogger(__name__)

#: Seconds between looks for claims of other instances, while the driver does not run.
LOOK = 2.0


class DraMode:
    """`wanted` is what is to be given out through DRA, nothing for no devices; `taken` is
    kept to the devices that claims have."""

    def __init__(
        self,
        context: NodeDriverContext,
        wanted: Watchable[tuple[Resource, ...]],
        taken: Watchable[Mapping[str, str]],
        times: DriverTimes = TIMES,
    ) -> None:
        self._context = context
        self._wanted = wanted
        self._taken = taken
        self._linger = times.linger
        self.driver = NodeDriver(context, times)
        self._on = Watchable(bool(wanted.value))
        self._client = DraClient(context.api)
        self.publisher = Publisher(
            self._client,
            PublisherContext(
                context.node,
                context.monitor.state,
                self.driver.registered,
                self.driver.held,
                self._on,
                context.evict,
                context.chips,
            ),
        )

    @property
    def on(self) -> bool:
        """Whether devices are given out through DRA."""
        return self._on.value

    def users(self) -> Mapping[str, tuple[tuple[Holder, str], ...]]:
        """By device, the containers that use it through a claim, each with the claim's
        `namespace/name`."""
        chips = (device.id for device in self._context.monitor.state.value.snapshot.devices)
        uses = uses_by_chip(self._context.pod_resources.claims.value, chips)
        return {
            chip: tuple(dict.fromkeys((use.holder, f"{use.namespace}/{use.name}") for use in found))
            for chip, found in uses.items()
        }

    async def run(self) -> None:
        """Until it is cancelled."""
        wake = asyncio.Event()
        try:
            await self._follow(wake)
        finally:
            self._client.close()

    async def _follow(self, wake: asyncio.Event) -> None:
        driver, running, version = self.driver, None, self._wanted.version
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kept_running("dra-publishing", self.publisher.run))
            with waking(wake, self._wanted, driver.claims):
                while True:
                    wake.clear()
                    if running is None:
                        await driver.look()
                    self._taken.set(claimed(driver.claims.value))
                    wanted = bool(self._wanted.value)
                    if driver.accepting != wanted:
                        log.info("dra-on" if wanted else "dra-off")
                    driver.accepting = wanted
                    if self._wanted.version != version:  # other devices, perhaps
                        version = self._wanted.version
                        self._on.set(wanted)
                    needed = wanted or bool(driver.claims.value)
                    if needed and running is None:
                        running = tasks.create_task(driver.run())
                    elif running is not None and not needed:
                        # The kubelet has to hear that its last claim was unprepared.
                        if await _woken(wake, self._linger):
                            continue
                        running.cancel()
                        await asyncio.wait({running})
                        running = None
                    # During an update another instance may still prepare claims.
                    await set_within(wake, None if running is not None else LOOK)


async def _woken(wake: asyncio.Event, seconds: float) -> bool:
    await set_within(wake, seconds)
    return wake.is_set()
