"""Restarts of the kubelet and of the plugin, alone and together: pods keep running, and the
API server never sees fewer devices than there are."""

from __future__ import annotations

import os
import signal

import pytest
from cluster.cluster import Cluster
from cluster.plugin import (
    NAMESPACE,
    AllocatableWatch,
    Plugin,
    assigned,
    container_identity,
    plugin_processes,
    wait_for_count,
    wait_for_status_posts,
)
from cluster.shell import wait_for
from conftest import StartPod


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_kubelet_restart_is_not_seen_by_anyone(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod, number: signal.Signals
) -> None:
    start_pod("before", 2)
    running, given = container_identity(cluster, "before"), assigned(cluster, "before")
    with AllocatableWatch(cluster) as watch:
        cluster.restart_kubelet(number)
        wait_for_status_posts(cluster)
        watch.assert_never_below(6)
    wait_for_count(cluster, 6)
    assert container_identity(cluster, "before") == running
    assert assigned(cluster, "before") == given
    after = assigned(cluster, start_pod("after", 4))
    assert not set(after.ids) & set(given.ids)


def test_a_deleted_plugin_pod_is_replaced(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    start_pod("before", 2)
    running, given = container_identity(cluster, "before"), assigned(cluster, "before")
    old = plugin.pod()
    plugin.delete_pod()
    wait_for("the new plugin pod", lambda: plugin.pod() != old, seconds=60)
    wait_for_status_posts(cluster)
    wait_for_count(cluster, 6)
    assert container_identity(cluster, "before") == running
    after = assigned(cluster, start_pod("after", 4))
    assert not set(after.ids) & set(given.ids)


def test_a_plugin_that_is_killed_is_started_again(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    pod = plugin.pod()
    (process,) = plugin_processes(cluster)
    os.kill(process, signal.SIGKILL)
    wait_for(
        "the container's restart",
        lambda: (
            cluster.get("pod", pod, NAMESPACE)["status"]["containerStatuses"][0]["restartCount"] > 0
        ),
        seconds=30,
    )
    wait_for_count(cluster, 6)
    assert len(assigned(cluster, start_pod("after", 6)).ids) == 6


def test_a_kubelet_restart_while_the_plugin_is_replaced(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    start_pod("before", 2)
    running = container_identity(cluster, "before")
    old = plugin.pod()
    plugin.delete_pod()
    cluster.restart_kubelet(signal.SIGKILL)
    wait_for("the new plugin pod", lambda: plugin.pod() != old, seconds=60)
    wait_for_status_posts(cluster)
    wait_for_count(cluster, 6)
    assert container_identity(cluster, "before") == running
    assert len(assigned(cluster, start_pod("after", 4)).ids) == 4
