"""The manual's two manifests, byte for byte, on cards that the kernel has: cgroup v2, the image
as it is, nothing simulated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.plugin import NAMESPACE, assigned, counts, workload
from cluster.shell import wait_for
from node.bus import USUAL, Bus
from node.guest_cluster import SECONDS
from node.measured import Measured, Stopwatch

MANUAL = Path(__file__).resolve().parents[3] / "deploy" / "manual"
ALL = 24


def wait_for_allocatable(cluster: Cluster, count: int) -> None:
    """Return when the node's status says so."""
    wait_for(
        f"{count} allocatable",
        lambda: counts(cluster).allocatable == count,
        seconds=SECONDS,
        every=0.5,
        describe=lambda: f"last: {counts(cluster)}",
    )


def wait_for_pod(cluster: Cluster, pod: str) -> None:
    """Return when it runs."""
    wait_for(
        f"{pod} to run",
        lambda: cluster.phase(pod) == "Running",
        seconds=SECONDS,
        every=0.5,
        describe=lambda: str(cluster.get("pod", pod)["status"]),
    )


@pytest.fixture(scope="module", autouse=True)
def plugin(bus: Bus, cluster: Cluster, measured: Measured) -> Iterator[None]:
    """The manual's DaemonSet, on a node with 24 chips."""
    with bus.plugged_in(USUAL):
        watch = Stopwatch()
        cluster.create(MANUAL / "moffett-device-plugin.yml")
        wait_for_allocatable(cluster, ALL)
        measured.act("DaemonSet created", watch.seconds)
        yield
        cluster.discard("daemonset", "moffett-device-plugin-daemonset", namespace=NAMESPACE)


def test_the_pod_runs_with_two_devices_of_one_card(
    cluster: Cluster, bus: Bus, measured: Measured
) -> None:
    watch = Stopwatch()
    cluster.create(MANUAL / "spu-pod.yml")
    try:
        wait_for_pod(cluster, "spu-pod")
        measured.act("manual's pod created", watch.seconds)
        given = assigned(cluster, "spu-pod").ids
        assert len(given) == 2
        assert len({bus.above(chip)[0] for chip in given}) == 1
    finally:
        cluster.discard("pod", "spu-pod")


def test_a_chip_leaves_and_comes_back(cluster: Cluster, bus: Bus, measured: Measured) -> None:
    watch = Stopwatch()
    bus.remove(bus.chips()[3])
    wait_for_allocatable(cluster, ALL - 1)
    measured.act("chip removed, to the node's status", watch.seconds)
    watch = Stopwatch()
    bus.rescan()
    wait_for_allocatable(cluster, ALL)
    measured.act("chip rescanned, to the node's status", watch.seconds)


def test_an_unprivileged_pod_opens_its_own_nodes_only(cluster: Cluster, bus: Bus) -> None:
    """Not another chip's either if it makes the node itself: the device cgroup says no."""
    cluster.create(workload("own", 2))
    try:
        wait_for_pod(cluster, "own")
        given = set(assigned(cluster, "own").ids)
        listed = cluster.exec("own", "sh", "-c", "ls /dev/mxspu*").stdout.split()
        assert len(listed) == 2
        assert {cluster.exec("own", "cat", path).stdout for path in listed} == given
        other = next(chip for chip in bus.chips() if chip not in given)
        (node,) = bus.nodes(other)
        assert Path(node).read_text() == other
        number = Path(node).stat().st_rdev
        major, minor = os.major(number), os.minor(number)
        script = f"mknod /tmp/other c {major} {minor} && cat /tmp/other"
        refused = cluster.exec("own", "sh", "-c", script, check=False)
        assert refused.returncode != 0
        assert "Operation not permitted" in refused.stderr
        assert other not in refused.stdout
    finally:
        cluster.discard("pod", "own")
