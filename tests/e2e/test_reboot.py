"""A node that reboots while pods hold devices: what comes back, and with what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cluster.cluster import Cluster
from cluster.plugin import Plugin, assigned, container_identity, wait_for_count, workload
from cluster.shell import wait_for


@pytest.fixture
def replicated(cluster: Cluster) -> Iterator[Callable[[], list[str]]]:
    """A ReplicaSet of one pod with two devices; yields a function that tells which run."""
    pod = workload("steady", 2, restarts=True)
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
