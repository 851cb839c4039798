"""Devices by CDI: the container runtime makes the nodes, from the plugin's spec, where kubelet
and runtime know CDI; where they do not, the kubelet can make them as ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.plugin import (
    NAMESPACE,
    Plugin,
    assigned,
    plugin_pod,
    wait_for_count,
    wait_for_nothing_offered,
    wait_for_plugin_processes,
)
from conftest import StartPod

STRATEGIES = ("cdi-cri", "cdi-annotations", "device-specs,cdi-cri")


@pytest.fixture(params=STRATEGIES)
def strategy(
    request: pytest.FixtureRequest, cluster: Cluster, simulated_image: Path
) -> Iterator[str]:
    """The plugin with each of the strategies."""
    cluster.import_image(simulated_image)
    folders = {str(cluster.layout.cdi): "/var/run/cdi"}
    cluster.create(plugin_pod("by-cdi", folders, SPU_DEVICE_LIST_STRATEGY=request.param))
    Plugin(cluster, "copy=by-cdi").pod()
    wait_for_count(cluster, 6)
    yield request.param
    cluster.discard("pod", "by-cdi", namespace=NAMESPACE)
    wait_for_plugin_processes(cluster, 0)
    wait_for_nothing_offered(cluster)


def test_a_pod_has_exactly_its_devices(
    cluster: Cluster, strategy: str, start_pod: StartPod
) -> None:
    given = assigned(cluster, start_pod("two", 2))
    assert len(given.ids) == 2
    # Neither kubelet 1.20 nor containerd 1.6 knows CDI: a documented trap.
    known = cluster.minor >= (1, 28) or "device-specs" in strategy
    own = tuple(sorted(f"/dev/spu-sim{index}" for index in given.indexes))
    assert given.nodes == (own if known else ())
