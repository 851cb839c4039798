"""What the node offers to the kubelet: one plugin for each name that its devices have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from ..allocation.allocator import UnitAllocator
from ..devices.monitor import Monitor
from ..hardware import Hardware
from ..resources.conflicts import Holders, hold_back
from ..resources.plugin_config import Terms
from ..resources.pools import Division, Leftover, Unit, divide
from ..runtime.counters import Tally
from ..runtime.watchable import Latest
from .kubelet_directory import KubeletDirectory
from .plugin import Patience, ResourcePlugin
from .service import Advertisement

log = logging.getLogger(__name__)


class Offer:
    """One name: `division` is what it stands for now, `advertised` its units."""

    def __init__(self, division: Division, make: Callable[[Offer], ResourcePlugin]) -> None:
        self.division = division
        self.advertised: Latest[Advertisement] = Latest(())
        self.plugin = make(self)
        self.task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.division.name

    @property
    def registered(self) -> bool:
        return self.plugin.registered

    def update(self, division: Division) -> None:
        before = self.division
        self.division = division
        if self.advertised.version and _same(before, division):
            return
        self.advertised.set(division.units())
        if self.registered:
            advertised = self.advertised.value
            log.info(
                "advertised",
                extra={
                    "resource": self.name,
                    "devices": len(advertised),
                    "healthy": sum(unit.healthy for unit in advertised),
                },
            )


def _same(one: Division, other: Division) -> bool:
    """Whether both have the same units: cheaper than to make all replicas and see."""
    replicas = one.resource.sharing.replicas, other.resource.sharing.replicas
    return one.bases == other.bases and replicas[0] == replicas[1]


class Offers:
    """Keeps an offer for every name while `run` is not cancelled; `terms` may change.

    `may_begin` is asked before anything is advertised: while it says no, no name
    appears that was not there before. `holders` tells who holds what, as the kubelet
    says it; `allocated` is called when that is about to change.
    """

    def __init__(
        self,
        terms: Terms,
        monitor: Monitor,
        hardware: Hardware,
        directory: KubeletDirectory,
        tally: Tally,
        patience: Patience,
        may_begin: Callable[[], bool] = lambda: True,
        holders: Callable[[], Holders] = dict,
        allocated: Callable[[], object] = lambda: None,
    ) -> None:
        self._terms = terms
        self._monitor = monitor
        self._hardware = hardware
        self._directory = directory
        self._tally = tally
        self._patience = patience
        self._may_begin = may_begin
        self._holders = holders
        self._allocated = allocated
        self._told_held: frozenset[str] = frozenset()
        self._offers: dict[str, Offer] = {}
        self._leftovers: tuple[Leftover, ...] = ()
        self._tasks: asyncio.TaskGroup | None = None
        self._told_idle = False
        self.changed: Latest[tuple[str, ...]] = Latest(())  # the names

    @property
    def current(self) -> Sequence[Offer]:
        """In the order of the configuration."""
        return tuple(self._offers.values())

    @property
    def divisions(self) -> tuple[Division, ...]:
        return tuple(offer.division for offer in self._offers.values())

    @property
    def terms(self) -> Terms:
        return self._terms

    def change_terms(self, terms: Terms) -> None:
        """Applies other terms here and now. Names that stay keep their registration."""
        self._terms = terms
        self.update()
        for offer in self._offers.values():
            offer.plugin.look_again()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            # Not left to a task: whoever asks next finds names and state in agreement.
            self._monitor.state.listen(self.update)
            try:
                self.update()
                await asyncio.Event().wait()
            finally:
                self._monitor.state.forget(self.update)
                self._tasks = None

    def update(self) -> None:
        """Makes the offers what the node's newest state and the terms call for."""
        state = self._monitor.state.value
        # Before mx-smi has been heard, a sick device could pass for healthy.
        if not state.settled or self._tasks is None:
            return
        if not state.snapshot.devices and not self._told_idle:
            self._told_idle = True
            log.info("no-devices", extra={"effect": "nothing is advertised until one appears"})
        divisions, leftovers = divide(state, self._terms.resources)
        holders, devices = self._holders(), state.snapshot.devices
        divisions = tuple(hold_back(division, holders, devices) for division in divisions)
        self._tell_held(divisions)
        self._tell_leftovers(leftovers)
        may_begin = self._may_begin()
        wanted = {division.name for division in divisions}
        for name in [name for name in self._offers if name not in wanted]:
            self._withdraw(self._offers.pop(name))
        for division in divisions:
            offer = self._offers.get(division.name)
            if offer is None:
                if not may_begin:
                    continue
                offer = self._offers[division.name] = Offer(division, self._plugin_for)
                offer.task = self._tasks.create_task(offer.plugin.run())
            else:
                _tell_cards(offer.division, division)
            offer.update(division)
        names = tuple(self._offers)
        if names != self.changed.value:
            self.changed.set(names)

    def _plugin_for(self, offer: Offer) -> ResourcePlugin:
        allocator = UnitAllocator(
            self._monitor.state,
            lambda: offer.division,
            lambda: self._terms.delivery,
            self._hardware.sola_mounts,
            self._monitor.look,
        )
        return ResourcePlugin(
            offer.name,
            self._directory,
            offer.advertised,
            allocator,
            calls=lambda: self._terms.calls,
            tally=self._tally.of(offer.name),
            allocated=self._allocated,
            patience=self._patience,
        )

    def _withdraw(self, offer: Offer) -> None:
        """An empty list goes first: without it a kubelet counts the devices for as long
        as it waits for a plugin to come back."""
        log.info("withdrawn", extra={"resource": offer.name})
        offer.advertised.set(())
        if offer.task is not None:
            # The list leaves in this turn of the loop; the plugin ends in a later one.
            asyncio.get_running_loop().call_later(self._patience.withdrawal, offer.task.cancel)

    def _tell_held(self, divisions: tuple[Division, ...]) -> None:
        held = {
            unit.held: (division.name, unit.id)
            for division in divisions
            for unit in division.bases
            if unit.held
        }
        for why in held.keys() - self._told_held:
            resource, unit_id = held[why]
            fields = {"resource": resource, "device": unit_id, "why": why}
            log.warning("held-elsewhere", extra={**fields, "effect": "not given out until then"})
        self._told_held = frozenset(held)

    def _tell_leftovers(self, leftovers: tuple[Leftover, ...]) -> None:
        for leftover in leftovers:
            if leftover not in self._leftovers:
                log.warning(
                    "not-advertised", extra={"devices": leftover.devices, "why": leftover.why}
                )
        self._leftovers = leftovers


def _tell_cards(before: Division, after: Division) -> None:
    """Cards that became sick or well; the devices' own lines have the reasons."""
    if after.resource.granularity != "card":
        return
    known = {unit.id: unit for unit in before.bases}
    for unit in after.bases:
        was: Unit | None = known.get(unit.id)
        if was is not None and was.healthy != unit.healthy:
            event = "card-healthy" if unit.healthy else "card-unhealthy"
            fields = {"resource": after.name, "card": unit.id, "devices": unit.devices}
            log.log(logging.INFO if unit.healthy else logging.ERROR, event, extra=fields)
