"""Prepares and unprepares claims: the API server's claim, the node's state and the records
come together here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from ..cdi.directory import CdiDirectory
from ..cdi.writer import SpecWriter
from ..kubernetes.dra import DraClient
from ..kubernetes.errors import ApiError
from ..resources.device_ids import DeviceIds
from ..runtime.watchable import Watchable, set_within, waking
from .claims import AllocatedClaim, ClaimReference, parse_claim
from .context import DriverTimes, NodeDriverContext
from .errors import ClaimRefusedError
from .held import ClaimHolders, Ledger, claim_holders, uses_by_chip
from .preparing import NodeFacts, check_prepared, prepare
from .records import ClaimRecord, Records, RecordsError, RecordStore
from .stats import DriverStats

log = logging.getLogger(__name__)

#: Seconds between looks for what another instance has unprepared.
_LOOK = 0.25
_MAX_REFUSALS = 256  # that are remembered, so that each is in the log once


class ClaimPreparer:
    """`holders` is who was prepared with each chip, on all instances, when the records were
    last looked at. `collided` is called when a claim meets a chip that is held."""

    def __init__(
        self,
        context: NodeDriverContext,
        store: RecordStore,
        client: DraClient,
        stats: DriverStats,
        times: DriverTimes,
        collided: Callable[[], object] = lambda: None,
    ) -> None:
        self._context = context
        self._store = store
        self._client = client
        self._stats = stats
        self._times = times
        self._collided = collided
        self._refusals: dict[str, str] = {}  # the last text in the log, by uid
        self._one_at_a_time = asyncio.Lock()
        place = CdiDirectory(context.cdi_dir, context.cdi_kind)
        self._specs = SpecWriter(place, at_least=context.cdi_version)
        self._ensuring = asyncio.Lock()
        self.records: dict[str, ClaimRecord] = {}  # as they should be in the directory
        self._missed: frozenset[str] = frozenset()  # at the last look, by uid
        self._identity: object = None  # of the directory then
        self.holders: Watchable[ClaimHolders] = Watchable({})
        self.accepting = True

    async def prepare(self, reference: ClaimReference) -> ClaimRecord:
        """Raises ClaimRefusedError."""
        began = time.perf_counter()
        try:
            record = await self._prepare(reference)
        except ClaimRefusedError as error:
            self._refused(reference, error)
            raise
        except RecordsError as error:
            text = f"claim {reference}: {error}; it is tried again"
            refused = ClaimRefusedError("records", text)
            self._refused(reference, refused)
            raise refused from error
        took = time.perf_counter() - began
        self._refusals.pop(reference.uid, None)
        self._stats.prepared += 1
        self._stats.prepare_seconds.observe(took)
        log.info(
            "claim-prepared",
            extra={
                "claim": reference,
                "uid": reference.uid,
                "devices": [chip for device in record.devices for chip in device.chips],
                "took_ms": round(took * 1000, 1),
            },
        )
        return record

    async def unprepare(self, reference: ClaimReference) -> None:
        """Of an unknown claim there is nothing to do. Raises RecordsError."""
        began = time.perf_counter()
        try:
            removed = await self.remove(reference)
        except RecordsError as error:
            self._stats.unprepare_failures += 1
            extra = {"claim": reference, "uid": reference.uid, "error": error}
            log.warning("claim-not-unprepared", extra=extra)
            raise
        self._stats.unprepared += 1
        self._stats.unprepare_seconds.observe(time.perf_counter() - began)
        if removed:
            log.info("claim-unprepared", extra={"claim": reference, "uid": reference.uid})

    async def remove(self, reference: ClaimReference) -> bool:
        """Ends the claim's record; False where there was none. Raises RecordsError."""
        uid = reference.uid
        self._refusals.pop(uid, None)
        if not reference.usable:
            return False
        async with self._one_at_a_time:

            def decide(_: Records) -> tuple[bool, Records]:
                removed = self._store.remove(uid)
                return removed, self._store.load()

            removed, records = await asyncio.to_thread(self._store.change, decide)
            self.records.pop(uid, None)
            self._took(records)
        return removed

    async def refresh(self) -> Records:
        """Looks at the records, which other instances change too. Those that somebody
        removed with everything else in the directory, or that the kubelet lists as in use,
        are put back. Raises RecordsError."""
        async with self._one_at_a_time:
            records = await asyncio.to_thread(self._store.load)
            missing = {u: r for u, r in self.records.items() if u not in records.by_uid}
            if missing:
                records = await self._put_back(missing)
            # Somebody may be in the middle of removing everything: a record is given up only
            # when it is missing at two looks.
            gone = missing.keys() - records.by_uid.keys()
            self.records = {u: r for u, r in missing.items() if u in gone - self._missed}
            self._missed = frozenset(gone)
            self._identity = self._store.identity()
            self._took(records)
        return records

    async def _put_back(self, missing: Mapping[str, ClaimRecord]) -> Records:
        """The records after those of `missing` that somebody removed who is no driver are
        back. Another instance that unprepares a claim removes its record, too."""
        pods = self._context.pod_resources
        await pods.refresh()
        used = {(use.namespace, use.name) for use in pods.claims.value}
        emptied = self._store.identity() != self._identity

        def decide(_: Records) -> tuple[Records, list[ClaimRecord]]:
            back = [r for r in missing.values() if emptied or _name(r) in used]
            for record in back:
                self._store.write(record)
            return self._store.load(), back

        records, back = await asyncio.to_thread(self._store.change, decide)
        for record in back:
            self._stats.restored += 1
            effect = "containers that use it can start again"
            extra = {"claim": record.reference, "uid": record.reference.uid, "effect": effect}
            log.warning("claim-spec-restored", extra=extra)
        return records

    async def ensure_spec(self) -> bool:
        """Makes container engines know the node's chips by name; whether they do."""
        async with self._ensuring:
            state = self._context.monitor.state.value
            if not self._specs.in_force(state.snapshot):
                await asyncio.to_thread(self._specs.ensure, state.snapshot)
            return self._specs.in_force(state.snapshot)

    # -- one claim ------------------------------------------------------------------------

    async def _prepare(self, reference: ClaimReference) -> ClaimRecord:
        if not reference.usable:
            raise ClaimRefusedError("records", f"claim {reference} has no valid uid")
        end = asyncio.get_running_loop().time() + self._times.held
        await self._settled(reference)
        claim = await self._get(reference)
        await self._know_holders(reference)
        if not await self.ensure_spec():
            text = f"claim {reference}: no CDI spec in {self._context.cdi_dir}; see the log"
            raise ClaimRefusedError("records", text)
        return await self._once_free(reference, claim, end)

    async def _once_free(
        self, reference: ClaimReference, claim: AllocatedClaim | None, end: float
    ) -> ClaimRecord:
        """The scheduler gives a chip to the next claim as soon as a pod has ended, which is
        a moment before the kubelet unprepares the pod's own claim. A refusal would cost the
        next pod a minute or more, after which the kubelet tries it again."""
        loop, wake = asyncio.get_running_loop(), asyncio.Event()
        with waking(wake, self.holders):
            while True:
                wake.clear()
                try:
                    return await self._now(reference, claim)
                except ClaimRefusedError as error:
                    if error.code != "device-held" or loop.time() >= end:
                        raise
                    self._collided()
                await set_within(wake, min(_LOOK, end - loop.time()))
                await self._know_holders(reference)

    async def _now(self, reference: ClaimReference, claim: AllocatedClaim | None) -> ClaimRecord:
        if self.records and self._store.identity() != self._identity:
            await self.refresh()  # what is gone holds its chips all the same
        async with self._one_at_a_time:
            record, records = await asyncio.to_thread(
                self._store.change, lambda records: self._decide(reference, claim, records)
            )
            self._took(records)
        return record

    def _decide(
        self, reference: ClaimReference, claim: AllocatedClaim | None, records: Records
    ) -> tuple[ClaimRecord, Records]:
        """Runs in a thread, under the lock. `claim` is None where the API server did not
        answer."""
        prepared = records.by_uid.get(reference.uid)
        facts = self._facts(records)
        if claim is None:
            record = self._known(reference, records)
            check_prepared(record, facts)
        else:
            if prepared is None and not self.accepting:
                text = (
                    f"claim {reference}: this node no longer gives out devices through DRA;"
                    " delete the pod, so that it is scheduled anew"
                )
                raise ClaimRefusedError("withdrawn", text)
            record = prepare(claim, facts, prepared)
        self._store.write(record)
        return record, Records({**records.by_uid, reference.uid: record}, records.broken)

    def _known(self, reference: ClaimReference, records: Records) -> ClaimRecord:
        record = records.by_uid.get(reference.uid)
        if record is None:
            text = (
                f"claim {reference}: the API server does not answer, and what the claim was"
                " allocated is not known; it is tried again"
            )
            raise ClaimRefusedError("api-unavailable", text)
        return record

    def _facts(self, records: Records) -> NodeFacts:
        context, state = self._context, self._context.monitor.state.value
        chips = [device.id for device in state.snapshot.devices]
        pods = context.pod_resources
        ledger = Ledger(
            claim_holders(records.by_uid.values()),
            uses_by_chip(pods.claims.value, chips, records.by_uid.values()),
            DeviceIds(state.snapshot.devices).holders(pods.holders.value),
            {} if context.grants is None else context.grants.recent(),
        )
        return NodeFacts(
            context.node,
            state,
            self._store.boot_id,
            ledger,
            None if context.chips is None else context.chips(state),
            context.inject_sola,
            context.hardware.sola_mounts(),
        )

    async def _settled(self, reference: ClaimReference) -> None:
        version = -1
        try:
            async with asyncio.timeout(self._times.settle):
                while not self._context.monitor.state.value.settled:
                    _, version = await self._context.monitor.state.after(version)
        except TimeoutError:
            text = f"claim {reference}: the node's devices are not known yet; it is tried again"
            raise ClaimRefusedError("not-settled", text) from None

    async def _get(self, reference: ClaimReference) -> AllocatedClaim | None:
        """None where the API server does not answer."""
        try:
            async with asyncio.timeout(self._times.get):
                found = await self._client.get_claim(reference.namespace, reference.name)
        except TimeoutError:
            return None
        except ApiError as error:
            if error.status == 404:
                text = f"claim {reference} does not exist any more; delete the pod"
                raise ClaimRefusedError("claim-gone", text) from error
            if error.status == 403:
                text = (
                    f"claim {reference}: the driver may not read it ({error}); give its service"
                    " account `get` on resourceclaims of resource.k8s.io"
                )
                raise ClaimRefusedError("api-unavailable", text) from error
            return None
        return parse_claim(found, reference)

    async def _know_holders(self, reference: ClaimReference) -> None:
        pods = self._context.pod_resources
        await pods.refresh()
        if not pods.answered:
            text = (
                f"claim {reference}: the kubelet does not say which pods hold devices"
                f" ({pods.error}); mount its pod-resources directory"
            )
            raise ClaimRefusedError("holders-unknown", text)

    def _took(self, records: Records) -> None:
        self.records |= records.by_uid
        holders = claim_holders(self.records.values())
        if holders != self.holders.value:
            self.holders.set(holders)

    def _refused(self, reference: ClaimReference, error: ClaimRefusedError) -> None:
        self._stats.refused[error.code] += 1
        if error.code in ("device-held", "claim-changed"):
            self._collided()
        if self._refusals.get(reference.uid) != str(error):
            if len(self._refusals) >= _MAX_REFUSALS:
                self._refusals.pop(next(iter(self._refusals)))
            self._refusals[reference.uid] = str(error)
            extra = {"claim": reference, "uid": reference.uid, "code": error.code, "why": error}
            log.warning("claim-refused", extra=extra)


def _name(record: ClaimRecord) -> tuple[str, str]:
    return record.reference.namespace, record.reference.name
