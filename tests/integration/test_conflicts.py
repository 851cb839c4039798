"""A node that is divided another way while pods run: nothing is given out twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moffett_device_plugin.api import KUBELET_CHECKPOINT
from moffett_device_plugin.daemon import Daemon
from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError
from moffett_device_plugin.podresources.client import Holder, Holders
from moffett_device_plugin.podresources.watcher import PodResourcesWatcher
from moffett_device_plugin.resources.plugin_config import PluginConfig
from moffett_device_plugin.resources.pools import Resource

from ..support.podresources import PodResources
from ..support.running import RESOURCE, Running, on_a_loop, running

CARD = "moffett.ai/spu-card"
CARDS = PluginConfig((Resource(CARD, granularity="card"),))


def know_pods(daemon: Daemon, it: Running) -> PodResourcesWatcher:
    """What pod-resources would say of the stand-in's pods."""

    async def ask() -> Holders:
        held: dict[str, dict[str, tuple[Holder, ...]]] = {}
        for pod in it.kubelet.pods.values():
            for unit_id in pod.device_ids:
                holder = Holder("default", pod.name, "main")
                held.setdefault(pod.resource, {})[unit_id] = (holder,)
        return held

    daemon.pod_resources_watcher = PodResourcesWatcher(ask=ask)
    daemon.pod_resources_watcher.holders.listen(daemon.plugin_manager.update)
    return daemon.pod_resources_watcher


@on_a_loop
async def test_a_card_of_which_a_pod_has_a_chip_waits_for_the_pods_end(short_dir: Path) -> None:
    async with running(short_dir) as it:
        daemon = it.start_plugin()
        pod_resources_watcher = know_pods(daemon, it)
        await it.allocatable(6)
        await it.kubelet.admit("train", RESOURCE, 1)
        await pod_resources_watcher.refresh()
        daemon.plugin_manager.change_plugin_config(CARDS)
        await it.until(lambda: it.kubelet.capacity(CARD) == 2 and it.kubelet.allocatable(CARD) == 1)
        with pytest.raises(AdmissionError):
            await it.kubelet.admit("two-cards", CARD, 2)
        await it.kubelet.admit("one-card", CARD, 1)
        it.kubelet.delete("train")
        await pod_resources_watcher.refresh()
        await it.until(lambda: it.kubelet.allocatable(CARD) == 2)


@on_a_loop
async def test_what_the_kubelet_wrote_down_counts_until_it_speaks(short_dir: Path) -> None:
    """A node that boots with another configuration: no kubelet is there to be asked."""
    plugins, socket = short_dir / "plugins", short_dir / "pods" / "kubelet.sock"
    socket.parent.mkdir()
    pods = PodResources({"ml/train/main": {RESOURCE: [["0000:36:00.0"]]}})
    async with running(plugins) as it:
        it.kubelet.kill()
        entry = {"PodUID": "1", "ResourceName": RESOURCE, "DeviceIDs": {"0": ["0000:36:00.0"]}}
        record = json.dumps({"Data": {"PodDeviceEntries": [entry]}})
        (plugins / KUBELET_CHECKPOINT).write_text(record)
        daemon = it.start_plugin(plugin_config=CARDS, pod_resources=socket)
        await it.kubelet.start()
        await it.until(lambda: it.kubelet.capacity(CARD) == 2)
        assert it.kubelet.allocatable(CARD) == 1, "from the first list on"
        async with pods.serving(socket):
            assert daemon.pod_resources_watcher is not None
            await daemon.pod_resources_watcher.refresh()
            assert it.kubelet.allocatable(CARD) == 1
            pods.pods = {}
            await daemon.pod_resources_watcher.refresh()
            await it.until(lambda: it.kubelet.allocatable(CARD) == 2)
