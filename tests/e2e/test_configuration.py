"""The configuration in a ConfigMap: several resources on one node, and its change under
pods that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster, Object
from cluster.images import WORKLOAD_IMAGE
from cluster.plugin import (
    NAMESPACE,
    SECONDS,
    AllocatableWatch,
    Plugin,
    assigned,
    container_identity,
    wait_for_phase,
)
from cluster.shell import wait_for
from conftest import MANIFESTS, StartPod

CONFIG_MAP = "moffett-config"
CARD = "moffett.ai/spu-card"
SHARED = "moffett.ai/spu.shared"
# A kubelet looks at its ConfigMaps once a minute, and with pods' changes.
RELOAD_SECONDS = 120.0

DEVICES = "version: v1\n"
SPLIT = """
version: v1
resources:
- select: {numaNode: 0}
- granularity: card
  select: {numaNode: 1}
"""
SHARING = """
version: v1
resources:
- select: {numaNode: 0}
- select: {numaNode: 1}
  sharing: {replicas: 4, maxPerPod: 2}
"""


def offered(cluster: Cluster) -> dict[str, int]:
    """Return how many units of each of the plugin's resources the node has to give."""
    allocatable = cluster.node()["status"]["allocatable"]
    found = {k: int(v) for k, v in allocatable.items() if k.startswith("moffett.ai/")}
    return {name: number for name, number in found.items() if number}


def wait_for_offer(cluster: Cluster, wanted: dict[str, int], seconds: float = SECONDS) -> None:
    wait_for(
        f"{wanted}",
        lambda: offered(cluster) == wanted,
        seconds=seconds,
        describe=lambda: f"last: {offered(cluster)}",
    )


def config_map(text: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
        "data": {"config.yaml": text},
    }


def configure(cluster: Cluster, plugin: Plugin, text: str) -> None:
    """Change the ConfigMap, and have the kubelet look at it soon."""
    patch = f'{{"data": {{"config.yaml": {_quoted(text)}}}}}'
    cluster.kubectl("-n", NAMESPACE, "patch", "configmap", CONFIG_MAP, "-p", patch)
    words = ["annotate", "pod", plugin.pod(), f"changed={hash(text)}", "--overwrite"]
    cluster.kubectl("-n", NAMESPACE, *words)


def _quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


def pod_of(name: str, resource: str, count: int) -> Object:
    container = {
        "name": "workload",
        "image": WORKLOAD_IMAGE,
        "resources": {"limits": {resource: count}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "containers": [container],
        },
    }


@pytest.fixture
def plugin(cluster: Cluster, simulated_image: Path) -> Iterator[Plugin]:
    cluster.import_image(simulated_image)
    cluster.create(config_map(DEVICES))
    cluster.create(MANIFESTS / "configured.yml")
    running = Plugin(cluster, "name=configured-plugin")
    try:
        wait_for_offer(cluster, {"moffett.ai/spu": 6})
        yield running
    finally:
        running.discard("configured-plugin")
        cluster.delete("configmap", CONFIG_MAP, NAMESPACE)


def test_a_running_pod_keeps_its_devices_through_reloads(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    before = assigned(cluster, start_pod("inference", 2))
    identity = container_identity(cluster, "inference")
    with AllocatableWatch(cluster) as watch:
        configure(cluster, plugin, SPLIT)
        wait_for_offer(cluster, {"moffett.ai/spu": 3, CARD: 1}, RELOAD_SECONDS)
        watch.assert_never_below(3)
    cluster.create(pod_of("whole", CARD, 1))
    try:
        wait_for_phase(cluster, "whole")
        card = assigned(cluster, "whole")
        assert len(card.ids) == len(card.nodes) == 3
        assert not set(card.ids) & set(before.ids)
        configure(cluster, plugin, "version: v1\nresources: [{nam: a.io/b}]\n")
        wait_for(
            "the refusal in the log",
            lambda: "configuration-refused" in cluster.logs(plugin.pod(), NAMESPACE),
            seconds=RELOAD_SECONDS,
        )
        assert "did you mean name?" in cluster.logs(plugin.pod(), NAMESPACE)
        assert offered(cluster) == {"moffett.ai/spu": 3, CARD: 1}
    finally:
        cluster.discard("pod", "whole")
    configure(cluster, plugin, DEVICES)
    wait_for_offer(cluster, {"moffett.ai/spu": 6}, RELOAD_SECONDS)
    assert assigned(cluster, "inference") == before
    assert container_identity(cluster, "inference") == identity


def test_a_shared_chip_goes_to_several_pods_and_the_limit_is_told(
    cluster: Cluster, plugin: Plugin
) -> None:
    configure(cluster, plugin, SHARING)
    wait_for_offer(cluster, {"moffett.ai/spu": 3, SHARED: 12}, RELOAD_SECONDS)
    names = [f"shared-{number}" for number in range(4)]
    try:
        for name in names:
            cluster.create(pod_of(name, SHARED, 1))
            wait_for_phase(cluster, name)
        chips = [assigned(cluster, name).ids[0] for name in names]
        assert len(set(chips[:3])) == 3, "the least used chip comes first"
        assert chips[3] in chips[:3]
        cluster.create(pod_of("greedy", SHARED, 3))
        names.append("greedy")
        wait_for_phase(cluster, "greedy", "Failed")
        message = cluster.get("pod", "greedy")["status"]["message"]
        assert "sharing.maxPerPod is 2" in message
    finally:
        cluster.discard("pod", *names)
