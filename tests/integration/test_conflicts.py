"""A node that is divided another way while pods run: nothing is given out twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moffett_device_plugin.api import KUBELET_CHECKPOINT
from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError
from moffett_device_plugin.resources.plugin_config import PluginConfig
from moffett_device_plugin.resources.pools import Resource

from ..support.podresources import PodResources
from ..support.running import RESOURCE, on_a_loop, running

CARD = "moffett.ai/spu-card"
CARDS = PluginConfig((Resource(CARD, granularity="card"),))


@on_a_loop
async def test_a_card_of_which_a_pod_has_a_chip_waits_for_the_pods_end(short_dir: Path) -> None:
    plugins, socket = short_dir / "plugins", short_dir / "pods" / "kubelet.sock"
    socket.parent.mkdir()
    pods = PodResources({})
    async with pods.serving(socket), running(plugins) as it:
        daemon = it.start_plugin(pod_resources=socket)
        pod_resources_watcher = daemon.pod_resources_watcher
        assert pod_resources_watcher is not None
        await it.allocatable(6)
        pod = await it.kubelet.admit("train", RESOURCE, 1)
        pods.pods = {"ml/train/main": {RESOURCE: [list(pod.device_ids)]}}
        await pod_resources_watcher.refresh()
        daemon.plugin_manager.change_plugin_config(CARDS)
        await it.until(lambda: it.kubelet.capacity(CARD) == 2 and it.kubelet.allocatable(CARD) == 1)
        with pytest.raises(AdmissionError):
            await it.kubelet.admit("two-cards", CARD, 2)
        await it.kubelet.admit("one-card", CARD, 1)
        it.kubelet.delete("train")
        pods.pods = {}
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
