"""Metrics of a daemon at work: chips, kubelet and pods in, a scrape out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as read_text

from moffett_device_plugin.daemon import Daemon
from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.hardware.types import SmiReport
from moffett_device_plugin.metrics.address import Address
from moffett_device_plugin.metrics.exporter import Exporter
from moffett_device_plugin.metrics.heartbeat import Heartbeats
from moffett_device_plugin.podresources.watcher import PodResourcesWatcher, RefreshIntervals
from tests.support.podresources import PodResources
from tests.support.running import RESOURCE, Running, running, simulated, until, within


@asynccontextmanager
async def exporting(
    it: Running, daemon: Daemon, pods: Path
) -> AsyncIterator[tuple[Exporter, PodResourcesWatcher]]:
    pod_resources_watcher = PodResourcesWatcher(pods, RefreshIntervals(3600, (0.001,) * 1000))
    exporter = Exporter(
        Address("127.0.0.1", 0),
        daemon.monitor,
        daemon.plugin_manager,
        daemon.counters,
        lambda: daemon.settings.health,
        Heartbeats({}),
        pod_resources_watcher,
    )
    tasks = [it.tasks.create_task(run) for run in (exporter.run(), pod_resources_watcher.run())]
    await within(exporter.server.port.after(0))
    try:
        yield exporter, pod_resources_watcher
    finally:
        for task in tasks:
            task.cancel()


async def get(exporter: Exporter, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", exporter.server.port.value)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await within(reader.read())).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body.decode()


async def scrape(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """Values by name and, in the order of their names, the labels but those of a device."""
    common = {"card", "index", "numa_node", "pci_bus_id", "product"}
    _, text = await get(exporter, "/metrics")
    return {
        (s.name, *(value for key, value in sorted(s.labels.items()) if key not in common)): s.value
        for family in read_text(text)
        for s in family.samples
    }


def test_a_pod_from_admission_to_its_devices_in_a_scrape(short_dir: Path) -> None:
    async def run() -> None:
        kubelet = PodResources()
        pods = short_dir / "pods.sock"
        async with kubelet.serving(pods), running(short_dir / "kubelet") as it:
            daemon = it.start_plugin()
            async with exporting(it, daemon, pods) as (exporter, pod_resources_watcher):
                await it.allocatable(6)
                assert await get(exporter, "/readyz") == (200, "ok\n")
                pod = await it.kubelet.admit("train", RESOURCE, 2)
                kubelet.pods = {"ml/train/main": {RESOURCE: [pod.device_ids]}}
                pod_resources_watcher.refresh_soon()
                await within(pod_resources_watcher.holders.after(0))
                values = await scrape(exporter)
        plugin = "moffett_device_plugin_"
        assert values[f"{plugin}registered", RESOURCE] == 1
        assert values[f"{plugin}registrations_total", RESOURCE] == 1
        assert values[f"{plugin}kubelet_starts_total",] == 1
        assert values[f"{plugin}units", RESOURCE, "healthy"] == 6
        assert values[f"{plugin}allocated_units", RESOURCE] == 2
        assert values[f"{plugin}allocations_total", RESOURCE] == 1
        assert values[f"{plugin}allocate_duration_seconds_count", RESOURCE] == 1
        assert values["moffett_spu_temperature_limit_celsius",] == 90
        held = {key[2] for key in values if key[0] == "moffett_spu_allocation_info"}
        assert held == set(pod.device_ids)

    asyncio.run(run())


def test_a_kubelet_that_is_not_there_is_not_ready_and_alive(short_dir: Path) -> None:
    async def run() -> None:
        async with running(short_dir, kubelet=False) as it:
            daemon = it.start_plugin()
            async with exporting(it, daemon, short_dir / "none.sock") as (exporter, _):
                await within(daemon.plugin_manager.changed.after(0))
                status, why = await get(exporter, "/readyz")
                assert (status, why) == (503, f"not registered with the kubelet: {RESOURCE}\n")
                assert await get(exporter, "/healthz") == (200, "ok\n")
                assert (await scrape(exporter))["moffett_device_plugin_registered", RESOURCE] == 0

    asyncio.run(run())


class Hanging(SimulatedNode):
    async def query_smi(self) -> SmiReport:
        await asyncio.Event().wait()
        raise AssertionError


def test_a_scrape_does_not_wait_for_mx_smi(short_dir: Path) -> None:
    async def run() -> None:
        async with running(short_dir) as it:
            daemon = it.start_plugin(Hanging(simulated("1xS4").layout))
            state = daemon.monitor.state
            await until(state, lambda: bool(state.value.snapshot.devices))
            async with exporting(it, daemon, short_dir / "none.sock") as (exporter, _):
                values = await scrape(exporter)
        (device,) = (key[1] for key in values if key[0] == "moffett_spu_healthy")
        assert not [key for key in values if key[0] == "moffett_spu_temperature_celsius"]
        assert values["moffett_spu_pcie_link_width_lanes", device] == 16

    asyncio.run(run())


def test_metrics_bring_neither_openssl_nor_a_web_server_along() -> None:
    """It is what they cost on every node; and who wants all of the library still gets it."""
    program = """
import sys
sys.modules["ssl"] = None
import moffett_device_plugin.metrics.exporter
heavy = {"ssl", "http.server", "wsgiref", "email", "urllib.request", "prometheus_client"}
print(sorted(name for name in heavy if sys.modules.get(name)))
del sys.modules["ssl"]
import prometheus_client
print(prometheus_client.Gauge("a", "b").collect() and "whole")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["[]", "whole", ""], done.stderr
