"""The node's part of the DRA driver: its tasks, in one task group."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from ..kubernetes.dra import DraClient
from ..podresources.client import Holder
from ..resources.device_ids import DeviceIds
from ..runtime.watchable import Watchable, set_within, waking
from .context import TIMES, DriverTimes, NodeDriverContext
from .healthstream import HealthStream
from .held import ClaimHolders
from .preparer import ClaimPreparer
from .records import RecordsError, RecordStore, read_boot_id
from .registrar import Registrar
from .service import DraService
from .stats import DriverStats
from .sweeping import Sweeper

log = logging.getLogger(__name__)

#: Seconds that one exchange with the API server may take: a kubelet waits 45 for all.
REQUEST_TIMEOUT = 10.0


class NodeDriver:
    """Prepares claims and reports health to the kubelet, until it is cancelled.

    `registered` grows with each registration (`Registrar`); `claims` is who was prepared
    with each chip; `held` are the chips that pods have through the device plugin API, with
    who has them.
    """

    def __init__(
        self,
        context: NodeDriverContext,
        times: DriverTimes = TIMES,
        boot_id: str | None = None,
    ) -> None:
        self._context = context
        self._times = times
        self.stats = DriverStats()
        # Of its own: a call of another feature that is slow holds up no claim.
        timeout = min(REQUEST_TIMEOUT, context.api.request_timeout)
        self._client = DraClient(replace(context.api, request_timeout=timeout))
        boot_id = read_boot_id() if boot_id is None else boot_id
        self._store = RecordStore(context.cdi_dir, boot_id)
        self.preparer = ClaimPreparer(
            context, self._store, self._client, self.stats, times, self._collided
        )
        self._sweeper = Sweeper(
            self.preparer,
            self._client,
            context.pod_resources,
            self.stats,
            times,
            time.monotonic,
        )
        methods = {
            **DraService(self.preparer, context.cdi_kind).methods(),
            **HealthStream(context.monitor.state, context.node).methods(),
        }
        self.registrar = Registrar(context.registry, methods, times)
        self.held: Watchable[Mapping[str, str]] = Watchable({})
        self._broken: frozenset[str] = frozenset()

    @property
    def registered(self) -> Watchable[int]:
        return self.registrar.registered

    @property
    def claims(self) -> Watchable[ClaimHolders]:
        return self.preparer.holders

    @property
    def accepting(self) -> bool:
        """Whether claims are prepared that have not been; others go on in any case."""
        return self.preparer.accepting

    @accepting.setter
    def accepting(self, accepting: bool) -> None:
        self.preparer.accepting = accepting

    async def run(self) -> None:
        try:
            await self.look()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_files())
                tasks.create_task(self._follow_pods())
                tasks.create_task(self._sweeper.run())
                tasks.create_task(self.registrar.run())
        finally:
            self._client.close()

    async def look(self) -> None:
        """Reads the records of the claims that are prepared, as it does when it starts."""
        try:
            for record in await asyncio.to_thread(self._store.remove_void):
                why = "it is of another boot"
                log.info("claim-record-removed", extra={"claim": record.reference, "why": why})
            records = await self.preparer.refresh()
        except RecordsError as error:
            self._log_unavailable(error)
            return
        self._log_broken(records.broken)

    async def _keep_files(self) -> None:
        """Keeps the chips' spec and the claims' own in force."""
        wake, failed = asyncio.Event(), False
        with waking(wake, self._context.monitor.state):
            while True:
                wake.clear()
                if self._context.monitor.state.value.snapshot.scan:
                    await self.preparer.ensure_spec()
                try:
                    self._log_broken((await self.preparer.refresh()).broken)
                    failed = False
                except RecordsError as error:
                    if not failed:
                        self._log_unavailable(error)
                    failed = True
                await self._state_changed(wake)

    async def _state_changed(self, wake: asyncio.Event) -> None:
        """Waits for a change of the devices that the spec is made of, or `times.check`."""
        devices = self._context.monitor.state.value.snapshot.scan
        end = time.monotonic() + self._times.check
        while (left := end - time.monotonic()) > 0:
            await set_within(wake, left)
            wake.clear()
            if self._context.monitor.state.value.snapshot.scan != devices:
                return

    async def _follow_pods(self) -> None:
        wake = asyncio.Event()
        pods, state = self._context.pod_resources, self._context.monitor.state
        with waking(wake, pods.holders, state):
            while True:
                wake.clear()
                by_chip = DeviceIds(state.value.snapshot.devices).holders(pods.holders.value)
                held = {chip: _held_by(who[0]) for chip, who in by_chip.items()}
                if held != self.held.value:
                    self.held.set(held)
                await wake.wait()

    def _collided(self) -> None:
        self._sweeper.wake()

    def _log_broken(self, broken: tuple[str, ...]) -> None:
        for name in sorted(set(broken) - self._broken):
            effect = "it is left alone; its claim, if there is one, is prepared anew"
            path = self._context.cdi_dir / name
            log.warning("claim-record-broken", extra={"file": path, "effect": effect})
        self._broken = frozenset(broken)

    @staticmethod
    def _log_unavailable(error: RecordsError) -> None:
        effect = "no claim is prepared or unprepared until then"
        log.error("claim-records-unavailable", extra={"why": error, "effect": effect})


def _held_by(holder: Holder) -> str:
    return f"held by pod {holder.namespace}/{holder.pod} through the device plugin API"
