"""Keeps the node's state true: looks at the hardware when there is reason to, joins
what it sees, judges it, and publishes the result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..hardware import Hardware, SmiError
from ..runtime.counters import Tally
from ..runtime.watchable import Latest
from .health.evaluate import Memories, judge
from .health.policy import HealthPolicy
from .inventory import Snapshot, observe_bus, observe_silence, observe_smi
from .state import NodeState
from .transition_log import tell_changes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look, in seconds.

    `pulse`: for what the bus shows without an event (config space, AER counts).
    `full_scan`: for whatever no event and no pulse told. `smi`: between runs of
    mx-smi. `smi_at_start`: how long the first run may hold up the first list.
    """

    pulse: float = 0.8
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
        pace: Pace = Pace(),
        tally: Tally | None = None,
    ) -> None:
        self._hardware = hardware
        self._policy = policy
        self._clock = clock
        self._pace = pace
        self._tally = tally or Tally()
        self.beat: Callable[[str], object] = lambda loop: None  # told of each turn of a loop
        self._memories: Memories = {}
        self._fingerprint: object = None
        self._blind = False
        self._smi_due = asyncio.Event()
        self._judge_due = asyncio.Event()
        self._again_at: float | None = None
        self.state: Latest[NodeState] = Latest(NodeState())

    async def run(self) -> None:
        self.look()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_events())
            tasks.create_task(self._pulse())
            tasks.create_task(self._poll_smi())
            tasks.create_task(self._rejudge())
            tasks.create_task(self._settle_anyway())

    def look(self) -> None:
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
        self._pace = replace(self._pace, smi=smi_interval)
        self._smi_due.set()
        self._publish(self.state.value.snapshot)

    async def ask_smi(self) -> None:
        """One run of mx-smi, whatever comes of it."""
        began_at = self.state.value.snapshot.scan
        if not self._hardware.has_smi:
            self._publish(observe_silence(self.state.value.snapshot, None), settled=True)
            return
        self._tally.smi_runs += 1
        try:
            report = await self._hardware.query_smi()
        except SmiError as error:
            self._tally.smi_failures += 1
            self._publish(observe_silence(self.state.value.snapshot, str(error)), settled=True)
        else:
            self._tally.smi_last_good = self._clock()
            self._publish(observe_smi(self.state.value.snapshot, report, began_at), settled=True)

    # -- the loops ------------------------------------------------------------------

    async def _follow_events(self) -> None:
        async for _ in self._hardware.events():
            self.look()

    async def _pulse(self) -> None:
        since_scan = 0.0
        while True:
            await asyncio.sleep(self._pace.pulse)
            self.beat("bus")
            since_scan += self._pace.pulse
            changed = self._hardware.fingerprint() != self._fingerprint
            if changed or since_scan >= self._pace.full_scan:
                since_scan = 0.0
                self.look()

    async def _poll_smi(self) -> None:
        while True:
            self._smi_due.clear()
            self.beat("mx-smi")
            await self.ask_smi()
            try:
                async with asyncio.timeout(self._pace.smi):
                    await self._smi_due.wait()
            except TimeoutError:
                pass

    async def _rejudge(self) -> None:
        """Judges again when time alone can change a verdict."""
        while True:
            try:
                wait = None if self._again_at is None else max(0, self._again_at - self._clock())
                async with asyncio.timeout(wait):
                    await self._judge_due.wait()
            except TimeoutError:
                self._publish(self.state.value.snapshot)
            self._judge_due.clear()

    async def _settle_anyway(self) -> None:
        await asyncio.sleep(self._pace.smi_at_start)
        if not self.state.value.settled:
            self._publish(self.state.value.snapshot, settled=True)

    # -- publishing -----------------------------------------------------------------

    def _publish(self, snapshot: Snapshot, *, settled: bool | None = None) -> None:
        before = self.state.value
        judgement = judge(snapshot, self._memories, self._policy, self._clock())
        self._memories = judgement.memories
        if judgement.again_at != self._again_at:
            self._again_at = judgement.again_at
            self._judge_due.set()
        after = NodeState(
            snapshot,
            dict(judgement.verdicts),
            before.settled if settled is None else settled,
        )
        if after != before:
            tell_changes(before, after)
            self.state.set(after)


def _came_up(before: Snapshot, after: Snapshot) -> bool:
    return any(device.came_up == after.scan for device in after.devices) and before.scan > 0
