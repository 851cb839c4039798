"""The manual's two manifests, byte for byte as published, do what the manual promises."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.plugin import NAMESPACE, Plugin, assigned, counts, wait_for_phase
from conftest import MANUAL


def test_the_archive_is_what_its_checksum_says(plugin_image: Path) -> None:
    recorded = plugin_image.with_name(plugin_image.name + ".sha256").read_text()
    assert recorded == f"{sha256(plugin_image.read_bytes()).hexdigest()}  {plugin_image.name}\n"


def test_the_daemonset_makes_six_spus_appear(cluster: Cluster, plugin: Plugin) -> None:
    assert counts(cluster).capacity == 6
    assert counts(cluster).allocatable == 6
    plugin.pod()
    assert len(plugin.pods()) == 1


def test_the_plugin_logs_to_its_pod(cluster: Cluster, plugin: Plugin) -> None:
    assert cluster.logs(plugin.pod(), NAMESPACE).strip()


@pytest.fixture
def spu_pod(cluster: Cluster, plugin: Plugin) -> Iterator[str]:
    cluster.create(MANUAL / "spu-pod.yml")
    yield "spu-pod"
    cluster.discard("pod", "spu-pod")


def test_the_pod_runs_with_two_devices_of_one_card(
    cluster: Cluster, plugin: Plugin, spu_pod: str
) -> None:
    wait_for_phase(cluster, spu_pod)
    given = assigned(cluster, spu_pod)
    assert len(given.ids) == 2
    devices = plugin.devices()
    assert len({devices[id_]["card"] for id_ in given.ids}) == 1
    assert [devices[id_]["index"] for id_ in given.ids] == list(given.indexes)
    # Privileged, so the machine's own /dev is there too: of SPU nodes only these.
    assert given.nodes == tuple(sorted(f"/dev/spu-sim{index}" for index in given.indexes))
