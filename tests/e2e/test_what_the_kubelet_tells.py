"""What a kubelet tells others about the devices it gave away: by its pod-resources API,
and in the pod's status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import pod_resources
from cluster.cluster import Cluster
from cluster.plugin import RESOURCE, Plugin, assigned
from cluster.shell import wait_for
from conftest import StartPod


@pytest.mark.parametrize("version", pod_resources.VERSIONS)
def test_pod_resources_lists_a_pods_devices(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod, version: str
) -> None:
    given = assigned(cluster, start_pod("two", 2))
    assert pod_resources.listed(version, "two", RESOURCE) == sorted(given.ids)


def test_pod_resources_lists_them_after_a_kubelet_restart(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    given = assigned(cluster, start_pod("three", 3))
    cluster.restart_kubelet()
    wait_for(
        "the restarted kubelet to list the pod's devices",
        lambda: pod_resources.listed("v1", "three", RESOURCE) == sorted(given.ids),
        seconds=30,
    )


def told_health(cluster: Cluster, pod: str) -> dict[str, str]:
    """Return the health of a pod's devices, by id, as the pod's status has it."""
    (container,) = cluster.get("pod", pod)["status"]["containerStatuses"]
    return {
        resource["resourceID"]: resource["health"]
        for status in container.get("allocatedResourcesStatus", [])
        if status["name"] == RESOURCE
        for resource in status["resources"]
    }


@pytest.fixture
def mended(plugin: Plugin) -> Iterator[Plugin]:
    """The plugin, with whatever the test broke mended afterwards."""
    yield plugin
    for id_, device in plugin.devices().items():
        if not device["healthy"]:
            plugin.simulate("heal", id_)


def test_a_pods_status_tells_that_its_device_fails_and_heals(
    cluster: Cluster, mended: Plugin, start_pod: StartPod
) -> None:
    if cluster.minor < (1, 36):
        pytest.skip("ResourceHealthStatus is on by default from Kubernetes 1.36 on")
    failing, sound = assigned(cluster, start_pod("two", 2)).ids

    def told(failing_one: str) -> None:
        wanted = {failing: failing_one, sound: "Healthy"}
        wait_for(
            f"the pod's status to say {wanted}",
            lambda: told_health(cluster, "two") == wanted,
            seconds=30,
            describe=lambda: f"last: {told_health(cluster, 'two')}",
        )

    told("Healthy")
    mended.simulate("inject", failing, "ecc")
    told("Unhealthy")
    mended.simulate("heal", failing)
    told("Healthy")
