"""Ends the records of claims that no longer exist.

The kubelet unprepares every claim that it knows. One that it forgot, as after its state
was deleted, would keep its chips for as long as the node runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..kubernetes.dra import DraClient
from ..kubernetes.errors import ApiError
from ..podresources.watcher import PodResourcesWatcher
from ..runtime.watchable import set_within
from .claims import ClaimReference, allocated, uid_of
from .context import DriverTimes
from .held import uid_in
from .preparer import ClaimPreparer
from .records import ClaimRecord, RecordsError
from .stats import DriverStats

log = logging.getLogger(__name__)


def orphaned(record: ClaimRecord, claim: Mapping[str, Any] | None) -> str:
    """Why no pod can have the record's devices by `claim`, which is what the API server
    has under its name; empty if one can. Pure."""
    if claim is None:
        return "the claim does not exist"
    if uid_of(claim) != record.reference.uid:
        return "the claim was replaced"
    if not {(device.pool, device.device) for device in record.devices} <= allocated(claim):
        return "the claim is allocated other devices"
    return ""


class Sweeper:
    """Looks every `times.sweep` seconds, and when it is woken."""

    def __init__(
        self,
        preparer: ClaimPreparer,
        client: DraClient,
        pod_resources: PodResourcesWatcher,
        stats: DriverStats,
        times: DriverTimes,
        clock: Callable[[], float],
    ) -> None:
        self._preparer = preparer
        self._client = client
        self._pod_resources = pod_resources
        self._stats = stats
        self._times = times
        self._clock = clock
        self._since: dict[str, float] = {}  # when each was first found so, by uid
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """A claim met a chip that is held: look now."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            await set_within(self._wake, self._times.sweep)
            self._wake.clear()
            try:
                records = await self._preparer.refresh()
                await self.sweep(tuple(records.by_uid.values()))
            except RecordsError as error:
                log.warning("claims-not-swept", extra={"why": error})
            # A kubelet repeats a claim that is refused, and each repetition wakes this.
            await asyncio.sleep(min(10.0, self._times.sweep))

    async def sweep(self, records: tuple[ClaimRecord, ...]) -> None:
        """Raises RecordsError."""
        self._since = {
            uid: since
            for uid, since in self._since.items()
            if uid in {record.reference.uid for record in records}
        }
        for record in records:
            await self._sweep_one(record)

    async def _sweep_one(self, record: ClaimRecord) -> None:
        reference = record.reference
        try:
            claim = await self._find(reference)
        except (ApiError, TimeoutError):
            return  # what the API server does not say is no evidence
        why = orphaned(record, claim)
        if not why:
            self._since.pop(reference.uid, None)
            return
        now = self._clock()
        since = self._since.setdefault(reference.uid, now)
        if now - since < self._times.orphan or await self._in_use(reference):
            return
        if await self._preparer.remove(reference):
            self._stats.swept += 1
            chips = [chip for device in record.devices for chip in device.chips]
            extra = {"claim": reference, "uid": reference.uid, "devices": chips, "why": why}
            log.warning("claim-released", extra=extra)

    async def _find(self, reference: ClaimReference) -> Mapping[str, Any] | None:
        try:
            async with asyncio.timeout(self._times.get):
                return await self._client.get_claim(reference.namespace, reference.name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _in_use(self, reference: ClaimReference) -> bool:
        """Whether a container uses it, or may: where the kubelet does not say, it may."""
        await self._pod_resources.refresh()
        if self._pod_resources.error is not None:
            return True
        return any(
            (use.namespace, use.name) == (reference.namespace, reference.name)
            and uid_in(use) in ("", reference.uid)
            for use in self._pod_resources.claims.value
        )
