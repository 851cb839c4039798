"""A DRA driver, a kubelet and an API server in one event loop, for as long as a test runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moffett_device_plugin.allocation.grants import Grants
from moffett_device_plugin.api import dra_pb2 as pb
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.monitor import Monitor, PollIntervals
from moffett_device_plugin.dra.claims import ClaimReference
from moffett_device_plugin.dra.context import DriverTimes, NodeDriverContext
from moffett_device_plugin.dra.driver import NodeDriver
from moffett_device_plugin.dra.names import DRIVER
from moffett_device_plugin.fake_kubelet.dra import DraKubelet
from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.podresources.watcher import PodResourcesWatcher, RefreshIntervals
from tests.support.apiserver import ApiServer, api_server
from tests.support.claims import claim, message
from tests.support.podresources import PodResources
from tests.support.running import simulated, until

TIMES = DriverTimes(
    settle=5, get=2, held=0.0, check=0.05, sweep=0.05, orphan=0.0, handover=0.2, unseen=5
)


@dataclass
class Node:
    """One node of a test. `drivers` are those that run, in starting order."""

    folder: Path
    tasks: asyncio.TaskGroup
    server: ApiServer
    kubelet: DraKubelet
    pods: PodResources
    hardware: SimulatedNode
    monitor: Monitor
    grants: Grants = field(default_factory=Grants)
    drivers: list[tuple[NodeDriver, asyncio.Task[None]]] = field(default_factory=list)
    kubelet_task: asyncio.Task[None] | None = None

    @property
    def cdi(self) -> Path:
        return self.folder / "cdi"

    @property
    def specs(self) -> list[str]:
        """The claims' specs, by the uids in their names."""
        prefix = "spu.moffett.ai-claim-"
        return sorted(p.stem.removeprefix(prefix) for p in self.cdi.glob(f"{prefix}*.json"))

    @property
    def sockets(self) -> list[str]:
        return sorted(path.name for path in self.kubelet.registry.glob("*.sock"))

    def context(self, **changes: Any) -> NodeDriverContext:
        watcher = PodResourcesWatcher(self.folder / "pods.sock", RefreshIntervals(interval=0.05))
        usual = NodeDriverContext(
            api=self.server.settings(request_timeout=1.0),
            monitor=self.monitor,
            hardware=self.hardware,
            pod_resources=watcher,
            registry=self.kubelet.registry,
            cdi_dir=self.cdi,
            grants=self.grants,
        )
        return replace(usual, **changes)

    async def start(
        self, times: DriverTimes = TIMES, boot_id: str = "boot", **changes: Any
    ) -> NodeDriver:
        """Starts an instance, and waits until the kubelet has it."""
        context = self.context(**changes)
        driver = NodeDriver(context, times, boot_id)

        async def run() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(context.pod_resources.run())
                tasks.create_task(driver.run())

        self.drivers.append((driver, self.tasks.create_task(run())))
        await until(driver.registered, lambda: driver.registered.value > 0)
        await self.until(
            lambda: driver.registrar.socket in [d.socket for d in self.kubelet.drivers]
        )
        return driver

    async def stop(self, driver: NodeDriver) -> None:
        ((_, task),) = [one for one in self.drivers if one[0] is driver]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def restart_kubelet(self) -> None:
        if self.kubelet_task is not None:
            self.kubelet_task.cancel()
            with suppress(asyncio.CancelledError):
                await self.kubelet_task
        self.kubelet = DraKubelet(self.kubelet.registry)
        self.kubelet_task = self.tasks.create_task(self.kubelet.run())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when it holds; it is looked at after every change in the kubelet."""
        await until(self.kubelet.changed, condition)

    def allocate(self, who: ClaimReference, *results: dict[str, Any], **more: Any) -> None:
        """The API server has the claim with these results."""
        self.server.claims[who.namespace, who.name] = claim(who, *results, **more)

    async def prepare(self, who: ClaimReference) -> pb.NodePrepareResourceResponse:
        return (await self.kubelet.prepare(message(who), driver=DRIVER))[who.uid]

    async def unprepare(self, who: ClaimReference) -> str:
        """The error; empty if there is none."""
        answer = await self.kubelet.unprepare(message(who), driver=DRIVER)
        return str(answer[who.uid].error)


@asynccontextmanager
async def dra_node(folder: Path, spec: str = "2xS30", **kubelet: Any) -> AsyncIterator[Node]:
    """With a kubelet and an API server that run, and no driver yet. `kubelet` are options
    of DraKubelet."""
    hardware, pods = simulated(spec), PodResources()
    policy, intervals = HealthPolicy(recovery_seconds=0.05), PollIntervals(smi=0.1)
    loop = asyncio.get_running_loop()
    async with (
        api_server(folder) as server,
        pods.serving(folder / "pods.sock"),
        asyncio.TaskGroup() as tasks,
    ):
        monitor = Monitor(hardware, policy, loop.time, intervals)
        node = Node(
            folder,
            tasks,
            server,
            DraKubelet(folder / "registry", **kubelet),
            pods,
            hardware,
            monitor,
        )
        watching = tasks.create_task(monitor.run())
        node.kubelet_task = tasks.create_task(node.kubelet.run())
        try:
            yield node
        finally:
            watching.cancel()
            for _, task in node.drivers:
                task.cancel()
            if node.kubelet_task is not None:
                node.kubelet_task.cancel()
