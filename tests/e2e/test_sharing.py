"""Several pods share a node's devices: each has its own, and no more than there are."""

from __future__ import annotations

from cluster.cluster import Cluster
from cluster.plugin import Plugin, assigned, stays_pending, wait_for_phase
from conftest import StartPod


def test_an_unprivileged_pod_sees_exactly_its_devices(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    given = assigned(cluster, start_pod("two", 2))
    assert len(given.ids) == 2
    assert given.nodes == tuple(sorted(f"/dev/spu-sim{index}" for index in given.indexes))


def test_a_pod_without_devices_sees_none(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    start_pod("none")
    assert cluster.exec("none", "find", "/dev", "-name", "spu-*").stdout == ""
    assert "MOFFETT" not in cluster.exec("none", "env").stdout


def test_three_chips_are_one_whole_card(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    start_pod("one", 1)
    given = assigned(cluster, start_pod("three", 3))
    devices = plugin.devices()
    assert len({devices[id_]["card"] for id_ in given.ids}) == 1


def test_what_is_asked_beyond_the_rest_waits_until_devices_are_freed(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    first = assigned(cluster, start_pod("first", 2))
    second = assigned(cluster, start_pod("second", 3))
    assert not set(first.ids) & set(second.ids)

    start_pod("third", 2, wait=False)
    assert "Insufficient moffett.ai/spu" in stays_pending(cluster, "third")
    assert cluster.phase("third") == "Pending"

    cluster.delete("pod", "first")
    wait_for_phase(cluster, "third")
    third = assigned(cluster, "third")
    assert len(third.ids) == 2
    assert not set(third.ids) & set(second.ids)
