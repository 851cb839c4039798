"""A plugin that the host starts, without the kubelet: it is there before the pods are.

No DaemonSet stands beside it: what would be seen then could be the DaemonSet's doing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import host
from cluster.cluster import Cluster
from cluster.plugin import (
    assigned,
    container_identity,
    plugin_processes,
    wait_for_count,
    wait_for_nothing_offered,
    wait_for_phase,
    wait_for_plugin_processes,
    workload,
)
from cluster.shell import wait_for

PLUGIN_IMAGE = "docker.io/moffett/k8s-device-plugin:v0.1.0"
# Not the kubelet's: it would end what it does not know.
NAMESPACE = "e2e-host"


@pytest.fixture
def plugin_of_the_host(cluster: Cluster, simulated_image: Path) -> Iterator[Callable[[], None]]:
    """A function that starts the plugin without the kubelet, as a unit of systemd would."""
    cluster.ctr("images", "import", simulated_image, namespace=NAMESPACE)
    folder = cluster.layout.kubelet_socket.parent
    names: list[str] = []

    def start() -> None:
        names.append(f"plugin-{len(names)}")
        cluster.ctr(
            *("run", "--detach", "--privileged", "--net-host"),
            *("--cgroup", f"/{cluster.layout.name}/{names[-1]}"),
            *("--snapshotter", host.snapshotter(cluster.layout)),
            *("--mount", f"type=bind,src={folder},dst={folder},options=rbind:rw"),
            *(PLUGIN_IMAGE, names[-1]),
            namespace=NAMESPACE,
        )

    start()
    wait_for_count(cluster, 6)
    yield start
    for pid in plugin_processes(cluster):
        os.kill(pid, signal.SIGTERM)
    wait_for_plugin_processes(cluster, 0)
    for name in names:
        cluster.ctr("tasks", "rm", name, namespace=NAMESPACE, check=False)
        cluster.ctr("containers", "rm", name, namespace=NAMESPACE, check=False)
    wait_for_nothing_offered(cluster)


def test_a_plugin_that_the_host_starts_is_there_before_the_pods(
    cluster: Cluster, plugin_of_the_host: Callable[[], None]
) -> None:
    cluster.create(workload("steady", 2, restarts=True))
    try:
        wait_for_phase(cluster, "steady")
        old, _ = container_identity(cluster, "steady")
        given = assigned(cluster, "steady")
        cluster.reboot(plugin_of_the_host)
        wait_for(
            "the same pod to run again",
            lambda: (
                container_identity(cluster, "steady")[0] != old
                and cluster.phase("steady") == "Running"
            ),
            seconds=60,
            describe=lambda: str(cluster.get("pod", "steady")["status"]),
        )
        assert assigned(cluster, "steady") == given
    finally:
        cluster.discard("pod", "steady")
