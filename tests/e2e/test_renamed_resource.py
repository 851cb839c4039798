"""A resource gets another name while a finished Job's pod is still there under the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster, Object
from cluster.plugin import (
    NAMESPACE,
    RESOURCE,
    SECONDS,
    Plugin,
    assigned,
    container_identity,
    plugin_pod,
    wait_for_count,
    wait_for_nothing_offered,
    wait_for_phase,
    wait_for_plugin_processes,
    wait_for_status_posts,
    workload,
)
from cluster.shell import wait_for

RENAMED = "moffett.ai/accelerator"
JOB = "finished"


def job() -> Object:
    """Return a Job of one pod that ends at once."""
    spec = workload(JOB, 2)["spec"]
    spec["containers"][0]["command"] = ["/bin/true"]
    template = {"metadata": {"labels": {"of": JOB}}, "spec": spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": JOB},
        "spec": {"template": template, "backoffLimit": 0},
    }


def offered(cluster: Cluster, resource: str) -> int:
    return int(cluster.node()["status"]["allocatable"].get(resource, 0))


@pytest.fixture
def plugin_under(cluster: Cluster, simulated_image: Path) -> Iterator[Callable[[str], None]]:
    """A function that has the plugin offer its devices under a name, and no longer under the
    one before."""
    cluster.import_image(simulated_image)

    def stop() -> None:
        cluster.discard("pod", "named", namespace=NAMESPACE)
        wait_for_plugin_processes(cluster, 0)
        wait_for_nothing_offered(cluster)

    def start(resource: str) -> None:
        stop()
        cluster.create(plugin_pod("named", SPU_RESOURCE_NAME=resource))
        Plugin(cluster, "copy=named").pod()
        wait_for(f"six of {resource}", lambda: offered(cluster, resource) == 6, seconds=SECONDS)

    yield start
    stop()


def test_a_finished_job_keeps_nothing_of_a_resource_that_is_renamed(
    cluster: Cluster, plugin_under: Callable[[str], None]
) -> None:
    plugin_under(RESOURCE)
    wait_for_count(cluster, 6)
    cluster.create(job())
    try:
        (done,) = wait_for(
            "the Job's pod to end",
            lambda: [
                pod["metadata"]["name"]
                for pod in cluster.find("pods", selector=f"of={JOB}")
                if pod["status"]["phase"] == "Succeeded"
            ],
            seconds=SECONDS,
        )
        plugin_under(RENAMED)
        pod = workload("all")
        pod["spec"]["containers"][0]["resources"] = {"limits": {RENAMED: 6}}
        cluster.create(pod)
        wait_for_phase(cluster, "all")
        given = assigned(cluster, "all")
        assert len(set(given.ids)) == 6
        running = container_identity(cluster, "all")
        cluster.restart_kubelet()
        wait_for_status_posts(cluster)
        wait_for("six again", lambda: offered(cluster, RENAMED) == 6, seconds=SECONDS)
        assert offered(cluster, RESOURCE) == 0
        assert container_identity(cluster, "all") == running
        assert cluster.phase(done) == "Succeeded"
    finally:
        cluster.discard("pod", "all")
        cluster.delete("job", JOB)
