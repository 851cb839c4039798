"""A daemon and a fake kubelet in one event loop, for as long as a test runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from moffett_device_plugin.daemon import Daemon
from moffett_device_plugin.deviceplugin.registration import RegistrationTimeouts
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.monitor import PollIntervals
from moffett_device_plugin.fake_kubelet.kubelet import FakeKubelet
from moffett_device_plugin.hardware import Hardware
from moffett_device_plugin.hardware.settings import HardwareSettings
from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.hardware.simulation import Faults, build, parse_spec
from moffett_device_plugin.runtime.watchable import Watchable
from moffett_device_plugin.settings.reload import ConfigFile
from moffett_device_plugin.settings.settings import LogSettings, ServeSettings

RESOURCE = "moffett.ai/spu"
LIMIT = 10.0  # seconds that no step of a test takes unless something is broken

T = TypeVar("T")


P = ParamSpec("P")


def on_a_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Runs an async test in a loop of its own, and fails it if it never ends."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(6 * LIMIT):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


def settings_for(directory: Path) -> ServeSettings:
    return ServeSettings(
        hardware=HardwareSettings(),
        log=LogSettings(),
        health=HealthPolicy(recovery_seconds=0.2),
        kubelet_dir=directory,
        state_dir=directory.with_name(f"{directory.name}-state"),
        smi_interval=0.2,
    )


def simulated(spec: str = "2xS30") -> SimulatedNode:
    return SimulatedNode(build(parse_spec(spec)))


@dataclass
class Running:
    """The parts of one test. `plugins` are the daemons that run, in starting order."""

    directory: Path
    tasks: asyncio.TaskGroup
    kubelet: FakeKubelet
    plugins: list[tuple[Daemon, asyncio.Task[None]]] = field(default_factory=list)

    def start_plugin(
        self,
        hardware: Hardware | None = None,
        timeouts: RegistrationTimeouts | None = None,
        file: ConfigFile | None = None,
        intervals: PollIntervals | None = None,
        **changes: Any,
    ) -> Daemon:
        """`changes` are settings that are not the tests' usual ones; with a `file`, the
        settings are the file's."""
        settings = settings_for(self.directory) if file is None else file.settings
        settings = replace(settings, **changes)
        daemon = Daemon(settings, hardware or simulated(), intervals, timeouts, file)
        self.plugins.append((daemon, self.tasks.create_task(daemon.run())))
        return daemon

    async def stop_plugin(self, daemon: Daemon) -> None:
        ((_, task),) = [p for p in self.plugins if p[0] is daemon]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def allocatable(self, count: int) -> None:
        await within(self.kubelet.until_allocatable(RESOURCE, count), f"{count} allocatable")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when it holds; it is looked at after every change in the kubelet."""
        await until(self.kubelet.changed, condition)

    @property
    def own_sockets(self) -> list[str]:
        names = (path.name for path in self.directory.glob("*.sock"))
        return sorted(name for name in names if name != "kubelet.sock")


async def within(awaitable: Awaitable[T], what: str = "it") -> T:
    try:
        async with asyncio.timeout(LIMIT):
            return await awaitable
    except TimeoutError:
        raise AssertionError(f"no {what} in {LIMIT:g} s") from None


async def until(latest: Watchable[T], condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await latest.after(latest.version)

    await within(wait(), "such change")


@asynccontextmanager
async def running(directory: Path, *, kubelet: bool = True) -> AsyncIterator[Running]:
    async with asyncio.TaskGroup() as tasks:
        it = Running(directory, tasks, FakeKubelet(directory, tasks))
        if kubelet:
            await it.kubelet.start()
        try:
            yield it
        finally:
            it.kubelet.kill()
            for _, task in it.plugins:
                task.cancel()


def failing(node: SimulatedNode, bus_id: str, fault: str) -> Faults:
    return node.faults.with_fault(bus_id, fault)
