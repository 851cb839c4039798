"""The whole daemon with its devices given out through DRA, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as read_text

from moffett_device_plugin.daemon import Daemon
from moffett_device_plugin.dra.claims import ClaimReference
from moffett_device_plugin.dra.mode import DraMode
from moffett_device_plugin.dra.monitoring import view_of
from moffett_device_plugin.dra.names import DRIVER, device_name
from moffett_device_plugin.fake_kubelet.dra import DraKubelet
from moffett_device_plugin.metrics.exposition import render
from moffett_device_plugin.metrics.families import collect
from moffett_device_plugin.metrics.readiness import unready
from moffett_device_plugin.metrics.view import View
from moffett_device_plugin.resources.plugin_config import PluginConfig
from moffett_device_plugin.resources.pools import Resource
from moffett_device_plugin.resources.selector import Selector
from tests.support.apiserver import NODE, ApiServer, api_server
from tests.support.claims import claim, message, result
from tests.support.podresources import PodResources
from tests.support.running import (
    RESOURCE,
    Running,
    on_a_loop,
    running,
    settings_for,
    simulated,
    until,
    within,
)
from tests.support.values import ids_of

CHIPS = ids_of("2xS30")
NAME = f"00000-{DRIVER}-{NODE}"
TRAIN = ClaimReference("ml", "train", "00000000-0000-4000-8000-000000000001")


@dataclass
class DraDaemon:
    """A daemon, both faces of a kubelet, and an API server."""

    it: Running
    server: ApiServer
    kubelet: DraKubelet
    pods: PodResources
    daemon: Daemon
    mode: DraMode

    @property
    def published(self) -> int:
        stored = self.server.slices.get(NAME)
        return len(stored["spec"].get("devices") or ()) if stored else 0

    def view(self) -> View:
        """As the exporter has it."""
        plugins = self.daemon.plugin_manager
        return View(
            self.daemon.monitor.state.value,
            self.daemon.counters,
            now=0.0,
            wall=0.0,
            pools=plugins.pools,
            registered={managed.name: managed.registered for managed in plugins.current},
            dra=view_of(self.mode),
        )

    def samples(self) -> dict[tuple[str, ...], float]:
        text = "".join(render(collect(self.view()), "text"))
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in read_text(text)
            for sample in family.samples
        }


@asynccontextmanager
async def dra_daemon(folder: Path, *resources: Resource) -> AsyncIterator[DraDaemon]:
    pods = PodResources()
    (folder / "kubelet").mkdir()
    async with (
        api_server(folder) as server,
        pods.serving(folder / "pods.sock"),
        running(folder / "kubelet") as it,
    ):
        server.node["metadata"]["uid"] = "node-uid"
        kubelet = DraKubelet(folder / "registry")
        listening = it.tasks.create_task(kubelet.run())
        settings = replace(
            settings_for(it.directory),
            plugin_config=PluginConfig(resources or (Resource(api="dra"),)),
            plugins_registry=folder / "registry",
            cdi_dir=folder / "cdi",
            pod_resources=folder / "pods.sock",
        )
        daemon = Daemon(settings, simulated(), api=server.settings(request_timeout=1.0), dra=True)
        task = it.tasks.create_task(daemon.run())
        try:
            await within(started(daemon))
            assert daemon.dra_mode is not None
            yield DraDaemon(it, server, kubelet, pods, daemon, daemon.dra_mode)
        finally:
            for one in (task, listening):
                one.cancel()
                with suppress(asyncio.CancelledError):
                    await one


async def started(daemon: Daemon) -> None:
    while not daemon.monitor.state.value.settled:
        await daemon.monitor.state.after(daemon.monitor.state.version)


@on_a_loop
async def test_ready_is_registered_and_published(short_dir: Path) -> None:
    async with dra_daemon(short_dir) as node:
        assert unready(node.view()) is not None
        published = node.mode.publisher.published
        await until(published, lambda: published.value)
        assert node.published == len(CHIPS)
        assert unready(node.view()) is None
        assert not node.it.kubelet.allocatable(RESOURCE), "no chip through both APIs"
        samples = node.samples()
        assert samples["moffett_device_plugin_dra_published",] == 1
        assert samples["moffett_device_plugin_dra_slice_writes_total",] == 1


@on_a_loop
async def test_a_claim_is_in_the_metrics_with_the_pod_that_uses_it(short_dir: Path) -> None:
    async with dra_daemon(short_dir) as node:
        published = node.mode.publisher.published
        await until(published, lambda: published.value)
        node.server.claims[TRAIN.namespace, TRAIN.name] = claim(TRAIN, result(CHIPS[0]))
        answer = (await node.kubelet.prepare(message(TRAIN), driver=DRIVER))[TRAIN.uid]
        assert not answer.error
        device = (DRIVER, NODE, device_name(CHIPS[0]), answer.devices[0].cdi_device_ids)
        node.pods.claims = {"ml/pod/main": {"ml/train": [device]}}
        watcher = node.daemon.pod_resources_watcher
        assert watcher is not None
        await watcher.refresh()
        samples = node.samples()
        assert samples["moffett_device_plugin_dra_claims",] == 1
        assert samples["moffett_device_plugin_dra_prepare_duration_seconds_count",] == 1
        info = (
            "moffett_spu_allocation_info",
            *sorted((CHIPS[0], "claim:ml/train", "main", "ml", "pod")),
        )
        assert samples[info] == 1


@on_a_loop
async def test_a_node_moves_to_the_other_api_and_back_under_a_claim(short_dir: Path) -> None:
    async with dra_daemon(short_dir) as node:
        published = node.mode.publisher.published
        await until(published, lambda: published.value)
        node.server.claims[TRAIN.namespace, TRAIN.name] = claim(TRAIN, result(CHIPS[0]))
        assert not (await node.kubelet.prepare(message(TRAIN), driver=DRIVER))[TRAIN.uid].error

        through_dra = node.daemon.settings.plugin_config
        node.daemon.apply(replace(node.daemon.settings, plugin_config=PluginConfig()))
        await node.it.allocatable(len(CHIPS) - 1)  # that of the claim is not given out
        await node.server.until(lambda: not node.server.slices)
        assert unready(node.view()) is None

        assert not (await node.kubelet.unprepare(message(TRAIN), driver=DRIVER))[TRAIN.uid].error
        await node.it.allocatable(len(CHIPS))

        node.daemon.apply(replace(node.daemon.settings, plugin_config=through_dra))
        await node.server.until(lambda: node.published == len(CHIPS))


@on_a_loop
async def test_both_apis_have_devices_of_their_own(short_dir: Path) -> None:
    """By a selection that the kubelet's resource excludes."""
    some = Selector(bus_ids=frozenset(CHIPS[:2]))
    resources = Resource(select=some, api="dra"), Resource(exclude=some)
    async with dra_daemon(short_dir, *resources) as node:
        await node.it.allocatable(4)
        await node.server.until(lambda: node.published == 2)
        assert set(node.it.kubelet.healthy_ids(RESOURCE)) == set(CHIPS[2:])
        # A claim that was allocated the other side's device, as by a forged status.
        node.server.claims[TRAIN.namespace, TRAIN.name] = claim(TRAIN, result(CHIPS[3]))
        answer = (await node.kubelet.prepare(message(TRAIN), driver=DRIVER))[TRAIN.uid]
        assert "which this node gives out through the device plugin API" in answer.error
        # Another division, without a restart.
        fewer = Selector(bus_ids=frozenset(CHIPS[:1]))
        divided = PluginConfig((Resource(select=fewer, api="dra"), Resource(exclude=fewer)))
        node.daemon.apply(replace(node.daemon.settings, plugin_config=divided))
        await node.it.allocatable(5)
        await node.server.until(lambda: node.published == 1)
