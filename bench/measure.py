"""One run of one plugin, and what was measured in it."""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moffett_device_plugin.fake_kubelet.behaviour import CURRENT
from moffett_device_plugin.fake_kubelet.kubelet import FakeKubelet

from . import processes
from .host import BenchHost
from .processes import MemoryUse, Running
from .spec import Environment, Plan, Plugin, arguments


class TimedOutError(Exception):
    """The plugin was too slow; the text has what was awaited."""


@dataclass(frozen=True, slots=True)
class Round:
    """Times in seconds, memory in MiB; None where a plugin has no such function, or did
    not do it in time."""

    registered: float  # from exec to Register
    listed: float  # from exec to the first device list
    allocates: tuple[float, ...]
    memory: MemoryUse  # after the Allocate calls
    reregistered: float | None = None  # from the new kubelet.sock to Register
    relisted: float | None = None  # ... to the first device list
    same_inode: bool = False  # whether the new kubelet.sock had the old one's number
    removal_listed: float | None = None  # from a function's removal from the bus
    return_listed: float | None = None  # from its return
    all_ones_listed: float | None = None  # from its configuration space's all ones


@dataclass(frozen=True, slots=True)
class Idle:
    """A plugin with a kubelet that calls nothing: share of one processor, MiB."""

    cpu: float
    memory: MemoryUse
    peak_rss: float


@dataclass(slots=True)
class Run:
    """One plugin that runs, with its kubelet. `host` and `config` (that of the first
    device) are None for a plugin that does not read the fake host."""

    environment: Environment
    kubelet: FakeKubelet
    process: Running
    timeout: float
    host: BenchHost | None = None
    config: mmap.mmap | None = None

    @property
    def resource(self) -> str:
        return next(iter(self.kubelet.resources()), "")

    def healthy(self) -> list[str]:
        return self.kubelet.healthy_ids(self.resource)

    async def until(self, what: str, condition: Callable[[], bool]) -> float:
        """When it held (time.perf_counter). Raises TimedOutError."""
        try:
            async with asyncio.timeout(self.timeout):
                while not condition():
                    await self.kubelet.changed.after(self.kubelet.changed.version)
        except TimeoutError:
            raise TimedOutError(f"{what}: nothing in {self.timeout:.0f} s") from None
        return time.perf_counter()

    async def listed(self) -> float:
        """When the kubelet had a list of all devices. Raises TimedOutError."""
        return await self.until("device list", lambda: self._count() >= self.environment.devices)

    def _count(self) -> int:
        return self.kubelet.capacity(self.resource)

    async def until_listed(
        self, act: Coroutine[Any, Any, None], condition: Callable[[], bool]
    ) -> float | None:
        """Seconds from the beginning of `act` to a list with which the condition holds."""
        async with asyncio.TaskGroup() as tasks:
            started = time.perf_counter()
            tasks.create_task(act)
            try:
                return await self.until("update", condition) - started
            except TimedOutError as error:
                print(error, file=sys.stderr)
                return None


class Bench:
    """Runs plugins below the directory `work`, which is left empty."""

    def __init__(self, work: Path, plan: Plan) -> None:
        self._work = work
        self._plan = plan

    async def round(self, plugin: Plugin, devices: int) -> Round:
        """Raises TimedOutError."""
        async with self._started(plugin, devices) as run:
            listed = await run.listed()
            registered = run.kubelet.registered_at[0]
            if run.kubelet.capacity(run.resource) != devices:
                count = run.kubelet.capacity(run.resource)
                print(f"{plugin.name}: {count} devices, not {devices}", file=sys.stderr)
            allocates = await self._allocate(run)
            memory = processes.memory(run.process.pid)
            reregistered, relisted, same_inode = await self._restart(run)
            removal, back, all_ones = await self._faults(plugin, run)
        return Round(
            registered=registered - run.process.at,
            listed=listed - run.process.at,
            allocates=tuple(allocates),
            memory=memory,
            reregistered=reregistered,
            relisted=relisted,
            same_inode=same_inode,
            removal_listed=removal,
            return_listed=back,
            all_ones_listed=all_ones,
        )

    async def idle(self, plugins: list[Plugin], devices: int) -> dict[str, Idle]:
        """All the plugins at once, each with a kubelet of its own."""
        async with AsyncExitStack() as stack:
            running: dict[str, Running] = {}
            for plugin in plugins:
                run = await stack.enter_async_context(self._started(plugin, devices))
                try:
                    await run.listed()
                    running[plugin.name] = run.process
                except TimedOutError as error:
                    print(f"{plugin.name}, {devices} devices, idle: {error}", file=sys.stderr)
            await asyncio.sleep(self._plan.settle)
            before = {name: processes.cpu_seconds(one.pid) for name, one in running.items()}
            started = time.perf_counter()
            await asyncio.sleep(self._plan.idle)
            span = time.perf_counter() - started
            return {
                name: Idle(
                    cpu=(processes.cpu_seconds(one.pid) - before[name]) / span,
                    memory=processes.memory(one.pid),
                    peak_rss=processes.peak_rss(one.pid),
                )
                for name, one in running.items()
            }

    @asynccontextmanager
    async def _started(self, plugin: Plugin, devices: int) -> AsyncIterator[Run]:
        scratch = self._work / f"{plugin.name}-{devices}"
        directory = plugin.directory or scratch / "device-plugins"
        scratch.mkdir(parents=True)
        environment = Environment(devices, directory, scratch / "host", scratch)
        try:
            async with asyncio.TaskGroup() as tasks:
                kubelet = FakeKubelet(directory, tasks, behaviour=CURRENT)
                with ExitStack() as stack:
                    host = config = None
                    if plugin.reads_host:
                        host = BenchHost(environment.host, devices)
                        config = stack.enter_context(host.config_of(host.devices[0]))
                        os.sync()  # else the writing of a thousand directories is measured, too
                    await kubelet.start()
                    stack.callback(kubelet.kill)
                    log = self._work / f"{plugin.name}.log"
                    words = arguments(plugin.command, environment)
                    process = stack.enter_context(processes.running(words, log))
                    yield Run(environment, kubelet, process, self._plan.timeout, host, config)
        finally:
            shutil.rmtree(scratch)
            if plugin.directory is not None:
                shutil.rmtree(plugin.directory)

    async def _allocate(self, run: Run) -> list[float]:
        """Seconds of each Allocate call for two random devices."""
        ids, draw, took = run.healthy(), random.Random(0), list[float]()
        for _ in range(self._plan.warm_up + self._plan.allocates):
            chosen = draw.sample(ids, min(2, len(ids)))
            started = time.perf_counter()
            await run.kubelet.allocate(run.resource, chosen)
            took.append(time.perf_counter() - started)
        return took[self._plan.warm_up :]

    @staticmethod
    async def _restart(run: Run) -> tuple[float | None, float | None, bool]:
        kubelet = run.kubelet
        inode = kubelet.socket.stat().st_ino
        kubelet.kill()
        known = len(kubelet.registrations)
        started = time.perf_counter()
        await kubelet.start()
        same = kubelet.socket.stat().st_ino == inode
        try:
            relisted = await run.listed()
        except TimedOutError:
            return None, None, same
        return kubelet.registered_at[known] - started, relisted - started, same

    @staticmethod
    async def _faults(plugin: Plugin, run: Run) -> tuple[float | None, float | None, float | None]:
        """The plugin's own fault command counts as a removal."""
        host, config = run.host, run.config
        if plugin.fault is not None:
            victim = run.healthy()[-1]
            words = arguments(plugin.fault, run.environment, id=victim)
            removal = await run.until_listed(_execute(words), lambda: victim not in run.healthy())
            return removal, None, None
        if host is None or config is None:
            return None, None, None
        first, last = host.devices[0], host.devices[-1]
        removal = back = None
        if last != first:  # of one device, the mapping would not outlive a removal
            removal = await run.until_listed(
                asyncio.to_thread(host.remove, last),
                lambda: last.bus_id not in run.healthy(),
            )
            back = await run.until_listed(
                asyncio.to_thread(host.restore, last),
                lambda: last.bus_id in run.healthy(),
            )

        async def all_ones() -> None:
            config[:] = b"\xff" * len(config)

        silent = await run.until_listed(all_ones(), lambda: first.bus_id not in run.healthy())
        return removal, back, silent


async def _execute(words: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise RuntimeError(f"{words[0]} failed with code {process.returncode}")
