"""What `serve` does beside the plugin when it is told to, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

from moffett_device_plugin.devices.cordon_file import CordonFile
from moffett_device_plugin.runtime.file_changes import file_changes
from tests.support.apiserver import ApiServer, api_server, refusal
from tests.support.running import RESOURCE, on_a_loop, running, within
from tests.support.values import ids_of

from .test_serve import serve

IDS = ids_of("2xS30")


def api_flags(server: ApiServer) -> list[str]:
    settings = server.settings()
    return [
        "--api-server", settings.url, "--api-token-file", str(settings.token_file),
        "--api-ca-file", str(settings.ca_file), "--node-name", settings.node,
    ]  # fmt: skip


@on_a_loop
async def test_events_condition_and_labels_reach_the_api_server(
    short_dir: Path, tmp_path: Path
) -> None:
    control = tmp_path / "simulation.json"
    async with api_server(tmp_path) as server, running(short_dir) as it:
        flags = ["--events", "true", "--condition", "true", "--labels", "api"]
        simulation = ["--simulate", "2xS30", "--simulate-control", str(control)]
        async with serve(it, *flags, *simulation, *api_flags(server)):
            await it.allocatable(6)
            await within(server.until(lambda: server.labels.get("moffett.ai/spu.count") == "6"))
            await within(server.until(lambda: (server.condition or {}).get("status") == "True"))
            control.write_text(json.dumps({"faults": {"0000:36:00.0": ["ecc"]}}))
            await it.allocatable(5)
            await within(server.until(lambda: (server.condition or {}).get("status") == "False"))
            await within(server.until(lambda: bool(server.events)))
            (event, *_) = server.events.values()
            assert event["reason"] == "SPUUnhealthy"
            assert "0000:36:00.0" in event["message"]


@on_a_loop
async def test_a_section_by_label_follows_the_labels_of_the_node(
    short_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("""
version: v1
nodes:
- match: {labels: {purpose: train}}
  resources: [{granularity: card}]
""")
    async with api_server(tmp_path) as server, running(short_dir) as it:
        flags = ["--config", str(file), "--simulate", "2xS30"]
        async with serve(it, *flags, *api_flags(server)) as served:
            await served.until_event("waiting-for-node-labels")
            await it.allocatable(6)
            server.relabel(purpose="train")
            await it.until(lambda: it.kubelet.allocatable("moffett.ai/spu-card") == 2)
            await it.allocatable(0)
            server.relabel(purpose="serve")
            await it.allocatable(6)


@on_a_loop
async def test_labels_for_node_feature_discovery(short_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "features.d" / "moffett-spu"
    file.parent.mkdir()
    async with running(short_dir) as it:
        flags = ["--labels", "nfd", "--nfd-file", str(file), "--simulate", "2xS30"]
        async with serve(it, *flags) as served:
            await served.until_event("labels")
            await it.allocatable(6)
            assert "moffett.ai/spu.count=6" in file.read_text().splitlines()


@on_a_loop
async def test_metrics_and_probes(short_dir: Path, free_port: int) -> None:
    async with running(short_dir) as it:
        flags = ["--metrics-address", f"127.0.0.1:{free_port}", "--simulate", "2xS30"]
        async with serve(it, *flags, "--pod-resources-socket", "none") as served:
            await served.until_event("registered")
            await it.allocatable(6)
            pod = await it.kubelet.admit("a", "moffett.ai/spu", 1)
            assert pod.device_ids
            text = await asyncio.to_thread(fetch, free_port, "metrics")
            assert 'moffett_device_plugin_allocations_total{resource="moffett.ai/spu"} 1.0' in text
            assert await asyncio.to_thread(fetch, free_port, "readyz") == "ok\n"
            assert await asyncio.to_thread(fetch, free_port, "healthz") == "ok\n"


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
        return str(answer.read().decode())


@on_a_loop
async def test_the_nodes_annotation_takes_devices_out_of_service_and_is_remembered(
    short_dir: Path, tmp_path: Path, state_dir: Path
) -> None:
    annotation = "moffett.ai/spu-cordon"
    async with api_server(tmp_path) as server, running(short_dir) as it:
        flags = ["--cordon-annotation", "true", "--simulate", "2xS30", *api_flags(server)]
        async with serve(it, *flags) as served:
            await it.allocatable(6)
            await within(server.until(lambda: server.watching > 0))
            server.annotate({annotation: "0000:36:00.0, card-0000:b4:00.0,chip9"})
            await it.allocatable(2)
            assert (await served.until_event("cordon-annotation-wrong"))["wrong"] == ["chip9"]
            server.annotate({annotation: "0000:36:00.0"})
            await it.allocatable(5)
            async for _ in file_changes(state_dir / "node-annotation.json"):
                if CordonFile(state_dir).read_annotation() == "0000:36:00.0":
                    break
            await served.stop()
        server.rule = lambda _: refusal(503)  # a restart while the API server is away
        async with serve(it, *flags):
            await it.until(lambda: it.kubelet.healthy_ids(RESOURCE) == sorted(IDS[1:]))
            server.rule = lambda _: None
            server.annotate({})
            await it.allocatable(6)
