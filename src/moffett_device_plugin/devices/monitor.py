"""Keeps the node's state true: looks at the hardware when there is reason to, joins
what it sees, judges it, and publishes the result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..hardware import Hardware, SmiError
from ..runtime.counters import Counters
from ..runtime.watchable import Watchable
from .health.evaluate import HealthHistories, evaluate
from .health.policy import HealthPolicy
from .inventory import Snapshot, observe_bus, observe_silence, observe_smi
from .state import NodeState
from .transition_log import log_transitions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PollIntervals:
    """How often to look, in seconds.

    `pulse`: for what the bus shows without an event (config space, AER counts).
    `full_scan`: for whatever no event and no pulse told. `smi`: between runs of
    mx-smi. `smi_at_start`: how long the first run may hold up the first list.
    """

    registers: float = 0.8
    full_scan: float = 60.0
    smi: float = 5.0
    smi_at_start: float = 2.0


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
        self._intervals = intervals
        self._counters = counters or Counters()
        self.heartbeat: Callable[[str], object] = lambda loop: None  # told of each turn of a loop
        self._histories: HealthHistories = {}
        self._fingerprint: object = None
        self._blind = False
        self._smi_due = asyncio.Event()
        self._evaluate_due = asyncio.Event()
        self._again_at: float | None = None
        self.state: Watchable[NodeState] = Watchable(NodeState())

    async def run(self) -> None:
        self.rescan()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_events())
            tasks.create_task(self._poll_registers())
            tasks.create_task(self._poll_smi())
            tasks.create_task(self._reevaluate())
            tasks.create_task(self._settle_anyway())

    def rescan(self) -> None:
        """One look at the bus, here and now. One that fails for a reason of our own leaves
        everything as it was seen last, and the next pulse looks again."""
        try:
            scan = self._hardware.scan()
        except OSError as error:
            self._fingerprint = object()
            self._tell_blind(error)
            return
        self._tell_blind(None)
        self._fingerprint = self._hardware.fingerprint()
        before = self.state.value.snapshot
        after = observe_bus(before, scan, self._hardware.sola_version())
        settled = self.state.value.settled or not self._hardware.has_smi
        if _came_up(before, after):
            self._smi_due.set()  # who they are, and whether their firmware is loaded
        self._publish(after, settled=settled)

    def _tell_blind(self, error: OSError | None) -> None:
        """Once when it begins, and once when it is over."""
        if error is not None and not self._blind:
            effect = "the devices stay as they are; the next look follows"
            log.warning("bus-not-read", extra={"error": error.strerror, "effect": effect})
        elif error is None and self._blind:
            log.info("bus-read-again")
        self._blind = error is not None

    def change(self, policy: HealthPolicy, smi_interval: float) -> None:
        """Judges by another policy from now on, and asks mx-smi at another pace."""
        self._policy = policy
        self._intervals = replace(self._intervals, smi=smi_interval)
        self._smi_due.set()
        self._publish(self.state.value.snapshot)

    async def ask_smi(self) -> None:
        """One run of mx-smi, whatever comes of it."""
        began_at = self.state.value.snapshot.scan
        if not self._hardware.has_smi:
            self._publish(observe_silence(self.state.value.snapshot, None), settled=True)
            return
        self._counters.smi_runs += 1
        try:
            report = await self._hardware.query_smi()
        except SmiError as error:
            self._counters.smi_failures += 1
            self._publish(observe_silence(self.state.value.snapshot, str(error)), settled=True)
        else:
            self._counters.smi_last_good = self._clock()
            self._publish(observe_smi(self.state.value.snapshot, report, began_at), settled=True)

    # -- the loops ------------------------------------------------------------------

    async def _follow_events(self) -> None:
        async for _ in self._hardware.events():
            self.rescan()

    async def _poll_registers(self) -> None:
        since_scan = 0.0
        while True:
            await asyncio.sleep(self._intervals.registers)
            self.heartbeat("bus")
            since_scan += self._intervals.registers
            changed = self._hardware.fingerprint() != self._fingerprint
            if changed or since_scan >= self._intervals.full_scan:
                since_scan = 0.0
                self.rescan()

    async def _poll_smi(self) -> None:
        while True:
            self._smi_due.clear()
            self.heartbeat("mx-smi")
            await self.ask_smi()
            try:
                async with asyncio.timeout(self._intervals.smi):
                    await self._smi_due.wait()
            except TimeoutError:
                pass

    async def _reevaluate(self) -> None:
        """Judges again when time alone can change a verdict."""
        while True:
            try:
                wait = None if self._again_at is None else max(0, self._again_at - self._clock())
                async with asyncio.timeout(wait):
                    await self._evaluate_due.wait()
            except TimeoutError:
                self._publish(self.state.value.snapshot)
            self._evaluate_due.clear()

    async def _settle_anyway(self) -> None:
        await asyncio.sleep(self._intervals.smi_at_start)
        if not self.state.value.settled:
            self._publish(self.state.value.snapshot, settled=True)

    # -- publishing -----------------------------------------------------------------

    def _publish(self, snapshot: Snapshot, *, settled: bool | None = None) -> None:
        before = self.state.value
        evaluation = evaluate(snapshot, self._histories, self._policy, self._clock())
        self._histories = evaluation.histories
        if evaluation.again_at != self._again_at:
            self._again_at = evaluation.again_at
            self._evaluate_due.set()
        after = NodeState(
            snapshot,
            dict(evaluation.health_statuses),
            before.settled if settled is None else settled,
        )
        if after != before:
            log_transitions(before, after)
            self.state.set(after)


def _came_up(before: Snapshot, after: Snapshot) -> bool:
    return any(device.came_up == after.scan for device in after.devices) and before.scan > 0
