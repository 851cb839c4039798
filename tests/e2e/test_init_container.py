"""An init container and a main container share a device, through a restart of the kubelet on
a node that has no other left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.cluster import Cluster, Object
from cluster.plugin import (
    Plugin,
    assigned,
    container_identity,
    wait_for_count,
    wait_for_phase,
    wait_for_status_posts,
    workload,
)
from cluster.shell import wait_for
from conftest import StartPod

POD = "prepared"
# Until the test lets it end.
PREPARE = ["/bin/sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done"]


def prepared() -> Object:
    """Return a pod with an init container; each of the two containers asks for a device."""
    pod = workload(POD, 1)
    (main,) = pod["spec"]["containers"]
    pod["spec"]["initContainers"] = [{**main, "name": "prepare", "command": PREPARE}]
    return pod


def in_the_init_container(cluster: Cluster, *command: str) -> str:
    return cluster.kubectl("exec", POD, "-c", "prepare", "--", *command).stdout


@pytest.fixture
def preparing(cluster: Cluster, plugin: Plugin, start_pod: StartPod) -> Iterator[str]:
    """The id of the device in the init container, which runs; the node has no other."""
    start_pod("others", 5)
    cluster.create(prepared())

    def runs() -> bool:
        statuses = cluster.get("pod", POD)["status"].get("initContainerStatuses", [])
        return any("running" in status["state"] for status in statuses)

    try:
        wait_for("the init container", runs, seconds=30)
        environment = in_the_init_container(cluster, "env").splitlines()
        (id_,) = (line for line in environment if line.startswith("MOFFETT_SPU_IDS="))
        yield id_.partition("=")[2]
    finally:
        cluster.discard("pod", POD)


def test_the_main_container_has_the_init_containers_device(
    cluster: Cluster, preparing: str, start_pod: StartPod
) -> None:
    cluster.restart_kubelet()
    wait_for_status_posts(cluster)
    wait_for_count(cluster, 6)
    in_the_init_container(cluster, "touch", "/tmp/go")
    wait_for_phase(cluster, POD)
    assert assigned(cluster, POD).ids == (preparing,)
    running = container_identity(cluster, POD)
    cluster.restart_kubelet()
    wait_for_status_posts(cluster)
    wait_for_count(cluster, 6)
    assert container_identity(cluster, POD) == running
    # When it ends, its one device is free, and no more.
    cluster.delete("pod", POD)
    assert assigned(cluster, start_pod("next", 1)).ids == (preparing,)
