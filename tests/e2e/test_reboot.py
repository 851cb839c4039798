"""A node that reboots while pods hold devices: what comes back, and with what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cluster.cluster import Cluster
from cluster.plugin import Plugin, assigned, wait_for_count, workload
from cluster.shell import wait_for


@pytest.fixture
def replicated(cluster: Cluster) -> Iterator[Callable[[], dict[str, str]]]:
    """A ReplicaSet of one pod with two devices; yields a function that tells which of its pods
    run, each with its container's id. Both are of one reading: a pod may fail after it."""
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

    def running() -> dict[str, str]:
        pods = cluster.find("pods", selector="of=steady")
        return {
            str(pod["metadata"]["name"]): str(container["containerID"])
            for pod in pods
            if pod["status"]["phase"] == "Running"
            for container in pod["status"].get("containerStatuses", [])
            if container["ready"]
        }

    yield running
    cluster.delete("replicaset", "steady", wait=False)
    names = [pod["metadata"]["name"] for pod in cluster.find("pods", selector="of=steady")]
    if names:
        cluster.discard("pod", *names)


def test_a_workload_has_its_devices_again(
    cluster: Cluster, plugin: Plugin, replicated: Callable[[], dict[str, str]]
) -> None:
    """A kubelet from 1.25 on may turn the pod itself down, since the plugin, a pod too, is
    not there yet: then whoever made the pod makes another."""
    before = set(wait_for("the workload", replicated, seconds=30).values())
    cluster.reboot()

    def again() -> list[str]:
        return [name for name, container in replicated().items() if container not in before]

    (after,) = wait_for("the workload after the reboot", again, seconds=60)
    assert len(assigned(cluster, after).ids) == 2
    wait_for_count(cluster, 6)
