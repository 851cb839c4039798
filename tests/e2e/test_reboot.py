"""A node that reboots while pods hold devices: what comes back, and with what."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import host
from cluster.cluster import Cluster, Object
from cluster.plugin import (
    Plugin,
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


def two_devices() -> Object:
    """Return a pod that is restarted, as all are that belong to something."""
    pod = workload("steady", 2)
    pod["spec"]["restartPolicy"] = "Always"
    pod["metadata"]["labels"] = {"of": "steady"}
    return pod


@pytest.fixture
def replicated(cluster: Cluster) -> Iterator[Callable[[], list[str]]]:
    """A ReplicaSet of one pod with two devices; yields a function that tells which run."""
    pod = two_devices()
    cluster.create(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": "steady"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"of": "steady"}},
                "template": {"metadata": {"labels": {"of": "steady"}}, "spec": pod["spec"]},
            },
        }
    )

    def running() -> list[str]:
        return [
            str(pod["metadata"]["name"])
            for pod in cluster.find("pods", selector="of=steady")
            if pod["status"]["phase"] == "Running"
            and all(c["ready"] for c in pod["status"].get("containerStatuses", [{"ready": False}]))
        ]

    yield running
    cluster.delete("replicaset", "steady", wait=False)
    names = [pod["metadata"]["name"] for pod in cluster.find("pods", selector="of=steady")]
    if names:
        cluster.discard("pod", *names)


def test_a_workload_has_its_devices_again(
    cluster: Cluster, plugin: Plugin, replicated: Callable[[], list[str]]
) -> None:
    """A kubelet from 1.25 on may turn the pod itself down, since the plugin, a pod too, is
    not there yet: then whoever made the pod makes another."""
    (before,) = wait_for("the workload", replicated, seconds=30)
    old = container_identity(cluster, before)[0]
    cluster.reboot()

    def again() -> list[str]:
        return [name for name in replicated() if container_identity(cluster, name)[0] != old]

    (after,) = wait_for("the workload after the reboot", again, seconds=60)
    assert len(assigned(cluster, after).ids) == 2
    wait_for_count(cluster, 6)


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
    cluster.create(two_devices())
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
