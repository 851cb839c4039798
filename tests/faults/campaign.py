"""The random campaign: a plan made from the seed alone, and how it is carried out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from . import invariants
from .actions import ACTIONS
from .invariants import Growth, InvariantError
from .world import NotNowError, World

#: Seconds between checks of what has no event.
LOOK = 0.05
#: The part of the time in which no daemon is ended.
LONG_LIFE = 0.4
#: Seconds after which a daemon has opened its files and imported its modules.
WARM = 3.0
#: Seconds without changes, in which nothing may be logged twice: several polls.
QUIET = 1.7


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: after a pause in seconds, with choices of its own."""

    name: str
    pause: float
    seed: int


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that overlap. Then some are repaired, or all, and the list must be right."""

    number: int
    steps: tuple[Step, ...]
    see_first: bool  # that the list is right with all of it, before anything is repaired
    linger: float  # seconds before anything is repaired
    repair_all: bool
    quiet: bool
    seed: int


def plan(seed: int, number: int, *, may_end: bool, deck: list[str]) -> Round:
    """Round `number` of this seed. Faults are dealt from `deck`, which is filled again
    when it is empty, so that each comes before any comes twice."""
    chance = random.Random(f"{seed} {number}")
    steps = []
    for _ in range(chance.randint(1, 6)):
        if not deck:
            deck += sorted(name for name in ACTIONS if may_end or not ACTIONS[name].ends)
            chance.shuffle(deck)
        name = deck.pop()
        pause = chance.choice((0.0, 0.0, 0.01, 0.1, 0.4))
        steps.append(Step(name, pause, chance.getrandbits(32)))
    return Round(
        number,
        tuple(steps),
        see_first=chance.random() < 0.6,
        linger=chance.choice((0.0, 0.0, 0.3, 2.0)),
        repair_all=number % 3 == 2 or chance.random() < 0.5,
        quiet=chance.random() < 0.4,
        seed=chance.getrandbits(32),
    )


@dataclass(slots=True)
class Counters:
    """Of one fault. Seconds from its end, or its repair, to a list that is right."""

    done: int = 0
    left_out: int = 0
    slowest: float = 0.0


@dataclass(slots=True)
class Record:
    """What was done, for the table and for the search for a defect."""

    counters_by_fault: dict[str, Counters] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)
    rounds: int = 0
    settled: int = 0
    usage: list[tuple[float, int]] = field(default_factory=list)  # MiB, descriptors
    _began: float = field(default_factory=time.monotonic)
    _waiting: dict[str, float] = field(default_factory=dict)

    def add(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:8.3f} s  {text}")

    def done(self, name: str) -> None:
        self.counters_by_fault.setdefault(name, Counters()).done += 1
        self.wait(name)

    def left_out(self, name: str) -> None:
        self.counters_by_fault.setdefault(name, Counters()).left_out += 1

    def wait(self, name: str) -> None:
        self._waiting[name] = time.monotonic()

    def agreed(self, at: float) -> None:
        """The list was right at that time."""
        for name, since in list(self._waiting.items()):
            if at >= since:
                counters = self.counters_by_fault[name]
                counters.slowest = max(counters.slowest, at - since)
                del self._waiting[name]


class Campaign:
    """Runs rounds in `world` until the time is over. Raises InvariantError."""

    def __init__(self, world: World, record: Record) -> None:
        self.world = world
        self.record = record
        self._causes: dict[str, str] = {}  # what is open, and the fault that left it

    async def run(self, seed: int, seconds: float) -> None:
        """No daemon is ended in the first part: growth shows in a long run."""
        began = time.monotonic()
        deck: list[str] = []
        number, may_end = 0, False
        while (spent := time.monotonic() - began) < seconds:
            if spent > LONG_LIFE * seconds and not may_end:
                may_end = True
                deck.clear()  # so that the faults that end it are dealt
            await self.round(plan(seed, number, may_end=may_end, deck=deck))
            number += 1

    async def guard(self) -> None:
        """Checks all the time. Raises InvariantError."""
        version = -1
        while True:
            self.world.check()
            if self.world.agreement.agrees:
                self.record.agreed(self.world.agreement.agreed_at)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    _, version = await self.world.kubelet.changed.after(version)

    async def round(self, what: Round) -> None:
        self.record.rounds += 1
        self.record.add(f"round {what.number}")
        for step in what.steps:
            await asyncio.sleep(step.pause)
            await self.step(step)
        if what.see_first:
            await self.settle()
        if what.quiet:  # with all faults that last
            await self.stay_quiet()
        await asyncio.sleep(what.linger)
        chance = random.Random(what.seed)
        names = list(self.world.open)
        chance.shuffle(names)
        if not what.repair_all:
            names = names[: len(names) // 2]
        for name in names:
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.02, 0.3)))
            await self.repair(name)
        await self.settle()
        if what.repair_all:
            self.world.machine.confirmed()
            await self.measure()
        await self.step(Step("pod-comes", 0.0, what.seed))

    async def step(self, step: Step) -> None:
        action = ACTIONS[step.name]
        self.world.chance = random.Random(step.seed)
        before = set(self.world.open)
        self.world.settled = self.world.agreement.agrees
        self.world.changed(action.seconds)
        self.record.add(f"{step.name} (seed {step.seed})")
        try:
            await action.act(self.world)
        except NotNowError:
            self.record.add("  not possible now")
            self.record.left_out(step.name)
        else:
            self.record.done(step.name)
        for name in self.world.open.keys() - before:
            self._causes[name] = step.name
        self.world.changed(action.seconds)

    async def repair(self, name: str) -> None:
        if name not in self.world.open:
            return
        self.record.add(f"repaired: {name}")
        cause = self._causes.get(name, "")
        await self.world.repair(name)
        if cause in ACTIONS:
            self.world.changed(ACTIONS[cause].seconds)
            self.record.wait(cause)

    async def settle(self) -> None:
        """Returns when the list is right, or is not checked."""
        while not self.world.agreement.agrees and self.world.differences() is not None:
            await asyncio.sleep(LOOK / 2)
        if self.world.agreement.agrees:
            self.record.settled += 1
        self.record.add(
            "the list is right" if self.world.agreement.agrees else "the list is not checked"
        )

    async def stay_quiet(self) -> None:
        await asyncio.sleep(QUIET / 2)  # lines about the last change may still be logged
        before = len(self.world.log_lines)
        await asyncio.sleep(QUIET)
        invariants.check_quiet(self.world.log_lines[before:])

    async def begin(self) -> None:
        """Measures a daemon without faults."""
        await self.settle()
        plugin = self.world.plugin
        assert plugin is not None
        await asyncio.sleep(max(0.0, WARM - plugin.age))
        self.world.usual_descriptors = plugin.descriptors()
        self.world.growth = Growth(usual=self.world.usual_descriptors)
        await self.measure()

    async def measure(self) -> None:
        """There is no fault: memory and descriptors must be as before."""
        uses: list[tuple[float, int]] = []
        plugin = self.world.plugin
        if plugin is None or len(self.world.plugins) > 1 or plugin.age < WARM:
            return
        for _ in range(8):  # a run of mx-smi has descriptors of its own for a moment
            uses.append((plugin.rss_mib(), plugin.descriptors()))
            await asyncio.sleep(LOOK)
        least = min(uses, key=lambda use: use[1])
        self.record.usage.append(least)
        self.world.growth.see(*least)


async def guarded(campaign: Campaign, work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Runs each of `work` beside the campaign's guard. Raises InvariantError."""
    guard = asyncio.ensure_future(campaign.guard())
    for begin in work:
        doing = asyncio.ensure_future(begin())
        await asyncio.wait((guard, doing), return_when=asyncio.FIRST_COMPLETED)
        if guard.done():
            doing.cancel()
            with suppress(asyncio.CancelledError, InvariantError):
                await doing
            await guard
        await doing
    guard.cancel()
