"""The kubelet's topology manager with `single-numa-node`: what it admits, and where the
devices come from. Two S30 at two NUMA nodes, three chips each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import numa
from cluster.cluster import Cluster
from cluster.plugin import Plugin, assigned, wait_for_count, wait_for_phase, wait_for_status_posts
from conftest import StartPod


@pytest.fixture(scope="module")
def single_numa_node(cluster: Cluster, plugin: Plugin) -> Iterator[Plugin]:
    prefix = numa.two_nodes(cluster.layout)
    with cluster.changed_kubelet(*prefix, topologyManagerPolicy="single-numa-node"):
        wait_for_status_posts(cluster)
        wait_for_count(cluster, 6)
        yield plugin


def numa_nodes(cluster: Cluster, plugin: Plugin, pod: str) -> set[int]:
    """Return the nodes that a pod's devices are at."""
    devices = plugin.devices()
    return {devices[id_]["numa_node"] for id_ in assigned(cluster, pod).ids}


def refusal(cluster: Cluster, pod: str) -> str:
    """Return why the kubelet would not have a pod."""
    wait_for_phase(cluster, pod, "Failed")
    return str(cluster.get("pod", pod)["status"]["reason"])


def test_three_and_three_are_each_at_a_node_of_their_own(
    cluster: Cluster, single_numa_node: Plugin, start_pod: StartPod
) -> None:
    first = numa_nodes(cluster, single_numa_node, start_pod("first", 3))
    second = numa_nodes(cluster, single_numa_node, start_pod("second", 3))
    assert sorted([*first, *second]) == [0, 1]


def test_more_than_a_node_has_is_refused(
    cluster: Cluster, single_numa_node: Plugin, start_pod: StartPod
) -> None:
    start_pod("four", 4, wait=False)
    assert refusal(cluster, "four") == "TopologyAffinityError"


def test_two_that_are_left_at_two_nodes_are_refused(
    cluster: Cluster, single_numa_node: Plugin, start_pod: StartPod
) -> None:
    first = numa_nodes(cluster, single_numa_node, start_pod("first", 2))
    second = numa_nodes(cluster, single_numa_node, start_pod("second", 2))
    assert sorted([*first, *second]) == [0, 1]
    start_pod("third", 2, wait=False)
    assert refusal(cluster, "third") == "TopologyAffinityError"
    assert len(assigned(cluster, start_pod("one", 1)).ids) == 1
