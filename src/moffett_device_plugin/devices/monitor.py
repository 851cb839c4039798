"""Keeps the node's state up to date: looks at the hardware when there is reason to,
joins what it reports, applies the health rules, and publishes the result."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from ..hardware import Hardware, Look, SmiAbsentError, SmiError
from ..hardware.reader import OverdueError, Reader
from ..hardware.types import BusScan
from ..runtime.counters import Counters
from ..runtime.watchable import Watchable
from .health.cordon import Cordon
from .health.evaluate import HealthHistories, evaluate, history_of, record_of_history
from .health.flapping import NO_FAULTS, Record
from .health.policy import HealthPolicy
from .inventory import (
    Snapshot,
    bus_outline,
    expire,
    freeze_cards,
    observe_bus,
    observe_overdue,
    observe_silence,
    observe_smi,
)
from .state import NodeState
from .transition_log import TransitionLog

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PollIntervals:
    """How often to look, in seconds.

    `registers`: for what the bus shows without an event (config space, AER counts).
    `full_scan`: for whatever no event and no register reported. `without_events`: the
    same where events do not come. `smi`: between runs of mx-smi. `smi_at_start`: how long
    the first run may hold up the first list. `deadline`: how long a look at the hardware
    may take. `event_delay`: how much later than a scan an event may come.
    """

    registers: float = 0.8
    full_scan: float = 60.0
    without_events: float = 3.0
    smi: float = 5.0
    smi_at_start: float = 2.0
    smi_confirm: float = 0.5
    deadline: float = 2.0
    event_delay: float = 1.0


class Monitor:
    """`state` is always the newest; `run` keeps it so until it is cancelled."""

    def __init__(
        self,
        hardware: Hardware,
        policy: HealthPolicy,
        clock: Callable[[], float],
        intervals: PollIntervals = PollIntervals(),
        counters: Counters | None = None,
    ) -> None:
        self._hardware = hardware
        self._policy = policy
        self._clock = clock
        #: The Unix time at which the clock was 0, as it was at the start.
        self.epoch = time.time() - clock()
        self._intervals = intervals
        self._counters = counters or Counters()
        self.heartbeat: Callable[[str], object] = lambda loop: None  # called in each turn of a loop
        self._snapshot = Snapshot()  # as in `state`, with the newest ages
        self._histories: HealthHistories = {}
        self._cordons: tuple[Cordon, ...] = ()
        self._transition_log = TransitionLog(clock)
        self._reader = Reader()
        self._looking = asyncio.Lock()
        self._looks_begun = 0
        self._rescan_due = asyncio.Event()
        self._overdue: dict[str | None, asyncio.Future[None]] = {}  # by the function's bus ID
        self._shown_overdue: frozenset[str] = frozenset()
        self._blind = False
        self._events_seen = 0
        self._events_missed = False
        self._smi_due = asyncio.Event()
        self._evaluate_due = asyncio.Event()
        self._again_at: float | None = None
        self.state: Watchable[NodeState] = Watchable(NodeState())

    async def run(self) -> None:
        try:
            await self.rescan()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_events())
                tasks.create_task(self._rescan_when_due())
                tasks.create_task(self._poll_smi())
                tasks.create_task(self._reevaluate())
                tasks.create_task(self._settle_anyway())
        finally:
            self._reader.close()

    async def rescan(self) -> None:
        """A look at the bus that begins after this call, and its result in `state`. One
        that fails for a reason of our own leaves everything as it was seen last, and the
        next poll looks again. Takes little more than the deadline at the most."""
        wanted = self._looks_begun + 1
        async with self._looking:
            if self._looks_begun >= wanted:
                return  # somebody else's look, which began later than this call
            self._looks_begun += 1
            await self._scan()

    async def _scan(self) -> None:
        if None in self._overdue:
            return  # its end makes a rescan due
        try:
            look = Look(skip=self._stuck)
            scan, sola = await self._reader.read(
                self._scan_in_thread, look, self._intervals.deadline
            )
        except OverdueError as error:
            self._note_overdue(error)
            if None not in self._overdue:
                await self._scan()  # without the function that does not respond
            return
        except OSError as error:
            self._log_blind(error.strerror)
            self._poll_registers(None)
            return
        self._log_blind(None)
        self._poll_registers(scan.registers)
        before = self._snapshot
        self._shown_overdue = self._stuck
        after = observe_bus(before, scan, sola, self._shown_overdue, self._clock())
        settled = self.state.value.settled or not self._hardware.has_smi
        if _came_up(before, after):
            self._smi_due.set()  # who they are, and whether their firmware is loaded
        self._publish(after, settled=settled)

    def _scan_in_thread(self, look: Look) -> tuple[BusScan, str | None]:
        return self._hardware.scan(look), self._hardware.sola_version()

    def _poll_registers(self, expected: object) -> None:
        """A rescan becomes due when they are no longer as `expected`."""
        self._reader.poll(
            self._hardware.registers,
            self._stuck,
            expected,
            self._intervals.registers,
            self._rescan_due.set,
        )

    def _note_overdue(self, error: OverdueError) -> None:
        """Notes which device does not respond, until it does."""
        # A second read of the same function that hangs is not about the function.
        bus_id = None if error.reading in self._stuck else error.reading

        def ended(_: object) -> None:
            self._overdue.pop(bus_id, None)
            self._rescan_due.set()

        self._overdue[bus_id] = error.ended
        error.ended.add_done_callback(ended)
        if bus_id is None:
            self._log_blind(f"no end after {self._intervals.deadline:g} s")
        else:
            self._publish(observe_overdue(self._snapshot, self._stuck))

    @property
    def _stuck(self) -> frozenset[str]:
        return frozenset(bus_id for bus_id in self._overdue if bus_id is not None)

    def _log_blind(self, error: str | None) -> None:
        """Once when it begins, and once when it is over."""
        if error is not None and not self._blind:
            effect = "the devices stay as they are; the next look follows"
            log.warning("bus-not-read", extra={"error": error, "effect": effect})
        elif error is None and self._blind:
            log.info("bus-readable-again")
        self._blind = error is not None

    def change(self, policy: HealthPolicy, smi_interval: float) -> None:
        """Applies another policy from now on, and asks mx-smi at another interval."""
        self._policy = policy
        self._intervals = replace(self._intervals, smi=smi_interval)
        self._smi_due.set()
        self._publish(self._snapshot)

    def cordon(self, cordons: tuple[Cordon, ...]) -> None:
        """Takes these devices out of service from now on, and no others."""
        if cordons != self._cordons:
            self._cordons = cordons
            self._publish(self._snapshot)

    @property
    def now(self) -> float:
        return self._clock()

    def restore(self, records: Iterable[Record]) -> None:
        """The faults of an earlier run, before the first look."""
        policy = self._policy
        self._histories = {record.device: history_of(record, policy) for record in records}

    def fault_records(self) -> tuple[Record, ...]:
        """What has to be kept of the devices that have failed, by device."""
        return tuple(
            record_of_history(device, history)
            for device, history in sorted(self._histories.items())
            if history.faults.count
        )

    def forget_faults(self, devices: Collection[str]) -> None:
        """As if these devices had not failed before; one that is well is offered when it has
        been well for as long as after a first fault."""
        self._histories = {
            device: replace(history, faults=NO_FAULTS) if device in devices else history
            for device, history in self._histories.items()
        }
        self._publish(self._snapshot)

    async def ask_smi(self) -> None:
        """One run of mx-smi, whatever comes of it."""
        began_at = self._snapshot.scan
        if not self._hardware.has_smi:
            self._publish(observe_silence(self._snapshot, None), settled=True)
            return
        self._counters.smi_runs += 1
        try:
            report = await self._hardware.query_smi()
        except SmiAbsentError:
            self._publish(observe_silence(self._snapshot, None), settled=True)
            return
        except SmiError as error:
            self._counters.smi_failures += 1
            self._publish(observe_silence(self._snapshot, str(error)), settled=True)
            return
        now = self._clock() - report.age
        after = observe_smi(self._snapshot, report, began_at, now)
        if after.smi.error is None:
            self._counters.smi_last_good = now
        else:
            self._counters.smi_failures += 1
        self._publish(after, settled=True)

    # -- the loops ------------------------------------------------------------------

    async def _follow_events(self) -> None:
        async for _ in self._hardware.events():
            self._events_seen += 1
            await self.rescan()

    async def _rescan_when_due(self) -> None:
        loop = asyncio.get_running_loop()
        scanned = loop.time()
        while True:
            scan_after = (
                self._intervals.without_events if self._events_missed else self._intervals.full_scan
            )
            # To be woken less often counts more than to see a held read at once.
            wait = min(self._intervals.deadline, scan_after)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._rescan_due.wait()
            self.heartbeat("bus")
            if not self._looking.locked() and (
                error := self._reader.overdue(self._intervals.deadline)
            ):
                self._note_overdue(error)
                self._rescan_due.set()
            if self._rescan_due.is_set() or loop.time() - scanned >= scan_after:
                scanned = loop.time()
                self._rescan_due.clear()
                events, before = self._events_seen, self._snapshot
                await self.rescan()
                await self._check_events(before, events)

    async def _check_events(self, before: Snapshot, events: int) -> None:
        """A change that the kernel announces, and that only a scan found, shows that its
        events do not reach this process."""
        if self._events_missed or not before.scan:
            return
        if bus_outline(before) == bus_outline(self._snapshot):
            return
        await asyncio.sleep(self._intervals.event_delay)
        if events == self._events_seen:
            self._events_missed = True
            effect = f"the bus is scanned every {self._intervals.without_events:g} s"
            log.warning("bus-events-missing", extra={"effect": effect})

    async def _poll_smi(self) -> None:
        while True:
            self._smi_due.clear()
            self.heartbeat("mx-smi")
            await self.ask_smi()
            wait = self._intervals.smi
            if any(device.missed == 1 for device in self._snapshot.devices):
                wait = min(wait, self._intervals.smi_confirm)
            try:
                async with asyncio.timeout(wait):
                    await self._smi_due.wait()
            except TimeoutError:
                pass

    async def _reevaluate(self) -> None:
        """Applies the rules again when time alone can change their result."""
        while True:
            try:
                wait = None if self._again_at is None else max(0, self._again_at - self._clock())
                async with asyncio.timeout(wait):
                    await self._evaluate_due.wait()
            except TimeoutError:
                self._publish(self._snapshot)
            self._evaluate_due.clear()

    async def _settle_anyway(self) -> None:
        await asyncio.sleep(self._intervals.smi_at_start)
        if not self.state.value.settled:
            self._publish(self._snapshot, settled=True)

    # -- publishing -----------------------------------------------------------------

    def _publish(self, snapshot: Snapshot, *, settled: bool | None = None) -> None:
        before = self.state.value
        settled = before.settled if settled is None else settled
        snapshot, expires_at = expire(snapshot, self._clock(), self._intervals.smi)
        if settled:
            snapshot = freeze_cards(snapshot)
        self._snapshot = snapshot
        evaluation = evaluate(
            snapshot, self._histories, self._policy, self._clock(), self._cordons, self.epoch
        )
        self._histories = evaluation.histories
        times = [at for at in (evaluation.again_at, expires_at) if at is not None]
        again_at = min(times, default=None)
        if again_at != self._again_at:
            self._again_at = again_at
            self._evaluate_due.set()
        after = NodeState(snapshot, dict(evaluation.health_statuses), settled)
        if after != before:
            self._transition_log.record(before, after)
            self.state.set(after)


def _came_up(before: Snapshot, after: Snapshot) -> bool:
    return any(device.came_up == after.scan for device in after.devices) and before.scan > 0
