"""One run of one plugin, and what was measured in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .hostroot import SysfsHardware, functions
from .kubelet import DeviceList, Kubelet, TimedOutError
from .processes import HealthHistory, Running
from .spec import Place, Plan, Plugin, arguments


@dataclass(frozen=True, slots=True)
class Round:
    """Times in seconds, memory in MiB; None where a plugin has no such thing, or did
    not do it in time."""

    registered: float  # from exec to Register
    listed: float  # from exec to the first device list
    allocates: tuple[float, ...]
    memory: HealthHistory  # after the Allocates
    reregistered: float | None = None  # from the new kubelet.sock to Register
    relisted: float | None = None  # ... to the first device list
    same_inode: bool = False  # whether the new kubelet.sock had the old one's number
    removal_told: float | None = None  # from a function's leaving the bus to the list
    return_told: float | None = None  # from its coming back
    silence_told: float | None = None  # from its configuration space's all ones


@dataclass(frozen=True, slots=True)
class Idle:
    """A plugin that was left alone with a kubelet: share of one processor, MiB."""

    cpu: float
    memory: HealthHistory
    peak_rss: float


class Bench:
    """Runs plugins below the directory `work`, which it leaves empty."""

    def __init__(self, work: Path, plan: Plan) -> None:
        self._work = work
        self._plan = plan

    def round(self, plugin: Plugin, devices: int) -> Round:
        with self._started(plugin, devices) as (place, host, kubelet, running):
            registered = kubelet.connect()
            first = kubelet.next_list("device list", lambda lst: len(lst.health) >= devices)
            _warn_of_other_count(plugin, devices, first)
            took = kubelet.allocate(sorted(first.health), self._plan.allocates, self._plan.warm_up)
            memory = processes.memory(running.pid)
            restart = self._restart(kubelet, devices)
            removal, back, silence = self._faults(plugin, place, host, kubelet, first)
        return Round(
            registered=registered.at - running.at,
            listed=first.at - running.at,
            allocates=tuple(took),
            memory=memory,
            reregistered=restart[0],
            relisted=restart[1],
            same_inode=restart[2],
            removal_told=removal,
            return_told=back,
            silence_told=silence,
        )

    def idle(self, plugins: list[Plugin], devices: int) -> dict[str, Idle]:
        """All the plugins at once, each with a kubelet of its own that asks nothing."""
        with ExitStack() as stack:
            alive: dict[str, Running] = {}
            for plugin in plugins:
                try:
                    started = stack.enter_context(self._started(plugin, devices))
                    _, _, kubelet, running = started
                    kubelet.connect()
                    kubelet.next_list("device list", lambda lst: len(lst.health) >= devices)
                    alive[plugin.name] = running
                except TimedOutError as error:
                    print(f"{plugin.name}, {devices} devices, idle: {error}", file=sys.stderr)
            time.sleep(self._plan.settle)
            before = {name: processes.cpu_seconds(one.pid) for name, one in alive.items()}
            start = time.monotonic()
            time.sleep(self._plan.idle)
            span = time.monotonic() - start
            return {
                name: Idle(
                    cpu=(processes.cpu_seconds(one.pid) - before[name]) / span,
                    memory=processes.memory(one.pid),
                    peak_rss=processes.peak_rss(one.pid),
                )
                for name, one in alive.items()
            }

    @contextmanager
    def _started(
        self, plugin: Plugin, devices: int
    ) -> Iterator[tuple[Place, SysfsHardware, Kubelet, Running]]:
        scratch = self._work / f"{plugin.name}-{devices}"
        directory = plugin.directory or scratch / "device-plugins"
        scratch.mkdir(parents=True)
        directory.mkdir(parents=True, exist_ok=True)
        host = SysfsHardware(scratch / "host", devices)
        place = Place(devices, directory, host.root, scratch)
        try:
            if "{host}" in plugin.command:
                host.build()
                host.map_config(functions(devices)[0].bus_id)
                os.sync()  # else the writing of a thousand directories is measured, too
            with (
                Kubelet(directory, self._plan.timeout) as kubelet,
                processes.running(
                    arguments(plugin.command, place), self._work / f"{plugin.name}.log"
                ) as running,
            ):
                yield place, host, kubelet, running
        finally:
            host.close()
            shutil.rmtree(scratch)
            if plugin.directory is not None:
                shutil.rmtree(plugin.directory)

    @staticmethod
    def _restart(kubelet: Kubelet, devices: int) -> tuple[float | None, float | None, bool]:
        old = kubelet.inode
        kubelet.restart()
        same = kubelet.inode == old
        try:
            registered = kubelet.connect()
            lists = kubelet.next_list("device list", lambda lst: len(lst.health) >= devices)
        except TimedOutError:
            return None, None, same
        return registered.at - kubelet.bound, lists.at - kubelet.bound, same

    def _faults(
        self, plugin: Plugin, place: Place, host: SysfsHardware, kubelet: Kubelet, first: DeviceList
    ) -> tuple[float | None, float | None, float | None]:
        """The plugin's own fault command counts as a removal."""
        if plugin.fault is not None:
            victim = sorted(first.health)[-1]
            argv = arguments(plugin.fault, place, id=victim)
            told = _told(kubelet, lambda: _run(argv), lambda devices: not devices.fit(victim))
            return told, None, None
        if not plugin.reads_host:
            return None, None, None
        silenced, removed = functions(place.devices)[0].bus_id, functions(place.devices)[-1].bus_id
        if removed == silenced:  # one device: the mapping would not outlive a removal
            removal = back = None
        else:
            removal = _told(
                kubelet, lambda: host.remove(removed), lambda devices: not devices.fit(removed)
            )
            back = _told(
                kubelet, lambda: host.restore(removed), lambda devices: devices.fit(removed)
            )
        silence = _told(
            kubelet, lambda: host.silence(silenced), lambda devices: not devices.fit(silenced)
        )
        return removal, back, silence


def _told(
    kubelet: Kubelet, act: Callable[[], None], want: Callable[[DeviceList], bool]
) -> float | None:
    """Seconds from the beginning of `act` to a list that is as wanted."""
    start = time.monotonic()
    act()
    try:
        return kubelet.next_list("update", want).at - start
    except TimedOutError as error:
        print(error, file=sys.stderr)
        return None


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def _warn_of_other_count(plugin: Plugin, devices: int, lst: DeviceList) -> None:
    if len(lst.health) != devices:
        print(f"{plugin.name}: {len(lst.health)} devices, not {devices}", file=sys.stderr)
