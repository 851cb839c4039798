"""A simulated node under load and under attack, with its metrics on a port: what the
tests of rules and dashboard, and the picture in the documents, are made from.

    python -m tests.monitoring.stage PORT SECONDS

Every part is the real one but the chips and the kubelet. The story takes SECONDS and
then goes on as it ended; SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

from moffett_device_plugin.daemon import Daemon
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError, FakeKubelet
from moffett_device_plugin.hardware.settings import HardwareSettings
from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.hardware.simulation import Layout, build, parse_spec
from moffett_device_plugin.hardware.types import SmiDevice, SmiReport
from moffett_device_plugin.metrics.address import Address
from moffett_device_plugin.settings.settings import (
    IntegrationSettings,
    LogSettings,
    ServeSettings,
)
from tests.support.podresources import PodResources

SPU = "moffett.ai/spu"


class BusyNode(SimulatedNode):
    """A simulated node whose chips work for whoever `holds` them: pod by bus id."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.holds: dict[str, str] = {}
        self._began = time.monotonic()
        self._warmth: dict[str, float] = {}

    async def query_smi(self) -> SmiReport:
        report = await super().query_smi()
        return replace(report, devices=tuple(self._busy(row) for row in report.devices))

    def _busy(self, row: SmiDevice) -> SmiDevice:
        """Load in waves of a period of its own for each pod; warmth follows slowly."""
        pod, seconds = self.holds.get(row.bus_id), time.monotonic() - self._began
        load = 0.0
        if pod is not None:
            wave = math.sin(seconds / (4 + len(pod)) + (row.index or 0) * 0.4)
            load = 0.72 + 0.25 * wave if pod != "inference" else 0.35 + 0.3 * wave
        warmth = self._warmth.get(row.bus_id, 0.0)
        warmth += (load - warmth) * 0.15
        self._warmth[row.bus_id] = warmth
        was = row.telemetry
        used = 0 if pod is None else int(4000 + 10_000 * load)
        faulty = (was.temperature_celsius or 0) > 80
        return replace(
            row,
            telemetry=replace(
                was,
                utilization_percent=round(100 * load, 1),
                memory_used_mib=used,
                memory_free_mib=(was.memory_total_mib or 0) - (was.memory_reserved_mib or 0) - used,
                temperature_celsius=(was.temperature_celsius or 0)
                + (0 if faulty else round(16 * warmth, 1)),
                power_draw_watts=round((was.power_draw_watts or 0) + 62 * load, 1),
            ),
        )


class Stage:
    def __init__(self, directory: Path, port: int, tasks: asyncio.TaskGroup) -> None:
        self.node = BusyNode(build(parse_spec("2xS30")))
        kubelet_dir = directory / "device-plugins"
        self.kubelet = FakeKubelet(kubelet_dir, tasks)
        self.pods = PodResources()
        settings = ServeSettings(
            hardware=HardwareSettings(),
            log=LogSettings(),
            health=HealthPolicy(recovery_seconds=1.0),
            kubelet_dir=kubelet_dir,
            state_dir=directory / "state",
            smi_interval=0.5,
            pod_resources=directory / "pods.sock",
            integrations=IntegrationSettings(metrics=Address("127.0.0.1", port)),
        )
        self.daemon = Daemon(settings, self.node)

    async def admit(self, pod: str, count: int) -> None:
        try:
            await self.kubelet.admit(pod, SPU, count)
        except AdmissionError:
            pass  # shown as a refusal
        self._tell()

    def delete(self, pod: str) -> None:
        self.kubelet.delete(pod)
        self._tell()

    def _tell(self) -> None:
        pods = self.kubelet.pods.values()
        self.node.holds = {bus_id: pod.name for pod in pods for bus_id in pod.device_ids}
        self.pods.pods = {f"ml/{p.name}/main": {p.resource: [p.device_ids]} for p in pods}
        if self.daemon.pod_resources_watcher is not None:
            self.daemon.pod_resources_watcher.refresh_soon()  # nothing tells of the end of a pod

    def breaks(self, index: int, fault: str) -> None:
        bus_id = self.node.layout.chips[index].bus_id
        self.node.set(self.node.faults.with_fault(bus_id, fault))

    def mends(self, index: int) -> None:
        self.node.set(self.node.faults.without(self.node.layout.chips[index].bus_id))

    async def play(self, seconds: float) -> None:
        """The story, in twenty parts of `seconds`."""
        part = seconds / 20

        async def later(parts: float) -> None:
            await asyncio.sleep(parts * part)

        await self.kubelet.until_allocatable(SPU, 6)
        await later(1)
        await self.admit("training", 3)
        await later(2)
        await self.admit("inference", 1)
        await later(2)
        self.breaks(4, "corrected")
        await later(2)
        self.breaks(1, "hot")
        await later(2)
        self.mends(1)
        await later(2)
        self.delete("inference")
        self.breaks(3, "link")
        await later(2)
        await self.admit("evaluation", 2)
        await later(2)
        self.breaks(4, "ecc")  # which evaluation holds
        self.breaks(5, "aer")
        await later(2)
        self.kubelet.kill()
        await self.kubelet.start()
        await self.kubelet.until_allocatable(SPU, 4)
        # A unit that is gone between the kubelet's list and its call: a refusal.
        listed = self.kubelet.devices(SPU)[self.node.layout.chips[5].bus_id]
        listed.health = "Healthy"
        await self.admit("unlucky", 1)
        await asyncio.Event().wait()


async def main(port: int, seconds: float) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="spu-") as name:
        directory = Path(name)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            stage = Stage(directory, port, tasks)
            await stack.enter_async_context(stage.pods.serving(directory / "pods.sock"))
            await stage.kubelet.start()
            tasks.create_task(stage.daemon.run())
            tasks.create_task(stage.play(seconds))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with suppress(asyncio.CancelledError):
        asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
