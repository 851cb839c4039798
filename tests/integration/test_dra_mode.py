"""The daemon as a node goes from the device plugin API to DRA and back: never one chip
through both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from moffett_device_plugin.api import dra_pb2 as pb
from moffett_device_plugin.daemon import Daemon
from moffett_device_plugin.dra.claims import ClaimReference
from moffett_device_plugin.dra.names import DRIVER
from moffett_device_plugin.fake_kubelet.dra import DraKubelet
from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError, FakeKubelet
from moffett_device_plugin.resources.plugin_config import PluginConfig
from moffett_device_plugin.resources.pools import Resource
from moffett_device_plugin.settings.settings import ServeSettings
from tests.support.apiserver import ApiServer, api_server
from tests.support.claims import claim, message, reference, result
from tests.support.dra import TIMES
from tests.support.podresources import PodResources
from tests.support.running import RESOURCE, on_a_loop, settings_for, simulated, until, within
from tests.support.values import ids_of

IDS = ids_of("2xS30")
A = IDS[0]
TRAIN = reference()


def through(api: str) -> PluginConfig:
    """Every device through this API."""
    return PluginConfig((Resource(api="dra" if api == "dra" else "device-plugin"),))


@dataclass
class Node:
    daemon: Daemon
    server: ApiServer
    plugins: FakeKubelet
    dra: DraKubelet
    pods: PodResources

    def change(self, api: str) -> None:
        self.daemon.apply(replace(self.daemon.settings, plugin_config=through(api)))

    async def registered(self) -> None:
        await until(self.dra.changed, lambda: bool(self.dra.registered(DRIVER)))

    async def published(self, *, there: bool = True) -> None:
        await self.server.until(lambda: bool(self.server.slices) == there)

    async def prepare(self, who: ClaimReference, chip: str) -> pb.NodePrepareResourceResponse:
        self.server.claims[who.namespace, who.name] = claim(who, result(chip))
        return (await self.dra.prepare(message(who), driver=DRIVER))[who.uid]

    async def allocatable(self, count: int) -> None:
        await within(self.plugins.until_allocatable(RESOURCE, count), f"{count} allocatable")


@asynccontextmanager
async def node(
    folder: Path, api: str, records: Callable[[Path], None] = lambda _: None
) -> AsyncIterator[Node]:
    pods = PodResources()
    for name in ("plugins", "api"):
        (folder / name).mkdir()
    records(folder / "cdi")
    async with (
        api_server(folder / "api") as server,
        pods.serving(folder / "pods.sock"),
        asyncio.TaskGroup() as tasks,
    ):
        plugins = FakeKubelet(folder / "plugins", tasks)
        dra = DraKubelet(folder / "registry")
        settings: ServeSettings = replace(
            settings_for(folder / "plugins"),
            pod_resources=folder / "pods.sock",
            cdi_dir=folder / "cdi",
            plugins_registry=folder / "registry",
            plugin_config=through(api),
        )
        daemon = Daemon(settings, simulated(), api=server.settings(), dra=True)
        await plugins.start()
        assert daemon.dra_mode is not None
        daemon.dra_mode.driver.preparer._times = TIMES  # which does not wait for holders
        running = [tasks.create_task(dra.run()), tasks.create_task(daemon.run())]
        try:
            yield Node(daemon, server, plugins, dra, pods)
        finally:
            plugins.kill()
            for task in running:
                task.cancel()


@on_a_loop
async def test_in_dra_nothing_is_advertised_and_in_the_device_plugin_api_nothing_published(
    tmp_path: Path,
) -> None:
    async with node(tmp_path, "dra") as it:
        await it.registered()
        await it.published()
        assert it.plugins.resources() == []
        it.change("device-plugin")
        await it.allocatable(6)
        await it.published(there=False)
        await until(it.dra.changed, lambda: not it.dra.registered(DRIVER))


@on_a_loop
async def test_a_claims_chip_is_not_given_out_after_the_change_and_its_pod_can_end(
    tmp_path: Path,
) -> None:
    async with node(tmp_path, "dra") as it:
        await it.registered()
        assert not (await it.prepare(TRAIN, A)).error
        it.change("device-plugin")
        await it.allocatable(5)
        assert A not in it.plugins.healthy_ids(RESOURCE)
        refused = await it.prepare(reference("late", 2), IDS[1])
        assert "no longer" in refused.error
        answer = await it.dra.unprepare(message(TRAIN), driver=DRIVER)
        assert not answer[TRAIN.uid].error
        await it.allocatable(6)


@on_a_loop
async def test_a_chip_of_a_device_plugin_pod_is_tainted_and_refused_after_the_change(
    tmp_path: Path,
) -> None:
    async with node(tmp_path, "device-plugin") as it:
        await it.allocatable(6)
        pod = await it.plugins.admit("old", RESOURCE, 1)
        (chip,) = pod.device_ids
        it.change("dra")
        await it.registered()
        # Before the kubelet lists the pod the grant itself counts.
        assert chip in (await it.prepare(TRAIN, chip)).error
        it.pods.pods = {"ml/old/main": {RESOURCE: [[chip]]}}
        error = (await it.prepare(TRAIN, chip)).error
        assert "ml/old" in error
        other = next(one for one in IDS if one != chip)
        assert not (await it.prepare(reference("other", 2), other)).error

        def tainted() -> list[str]:
            return [
                device["name"]
                for one in it.server.slices.values()
                for device in one["spec"]["devices"]
                if any(taint["key"].endswith("/held") for taint in device.get("taints", ()))
            ]

        await it.server.until(lambda: len(tainted()) == 1)


@on_a_loop
async def test_an_allocation_that_meets_a_claim_is_refused(tmp_path: Path) -> None:
    """Of a kubelet that has not heard yet that the chip is unhealthy."""
    async with node(tmp_path, "dra") as it:
        await it.registered()
        assert not (await it.prepare(TRAIN, A)).error
        it.change("device-plugin")
        await it.allocatable(5)
        from moffett_device_plugin.grpc.messages import StatusError

        with pytest.raises((AdmissionError, StatusError), match="ml/train"):
            await it.plugins.allocate(RESOURCE, [A])


@on_a_loop
async def test_a_daemon_that_starts_after_the_change_answers_for_claims_from_before(
    tmp_path: Path,
) -> None:
    from moffett_device_plugin.dra.records import (
        PreparedDevice,
        RecordStore,
        RequestEdits,
        make_record,
        read_boot_id,
    )

    def records(cdi: Path) -> None:
        device = PreparedDevice("spus", "node-1", "0000-36-00-0", (A,))
        made = make_record(TRAIN, [device], {"spus": RequestEdits({"A": "b"})}, read_boot_id())
        store = RecordStore(cdi, read_boot_id())
        store.change(lambda _: store.write(made))

    async with node(tmp_path, "device-plugin", records) as it:
        await it.allocatable(5)
        await it.registered()
        answer = await it.dra.unprepare(message(TRAIN), driver=DRIVER)
        assert not answer[TRAIN.uid].error
        await it.allocatable(6)
        await until(it.dra.changed, lambda: not it.dra.registered(DRIVER))
