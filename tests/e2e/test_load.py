"""A node under load: pods that come and go as fast as the API server takes them, and a restart
of the kubelet while there is no idle processor."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from cluster import api, klog
from cluster.cluster import Cluster
from cluster.images import BUSYBOX
from cluster.plugin import (
    AllocatableWatch,
    Plugin,
    assigned,
    container_identity,
    wait_for_count,
    wait_for_status_posts,
    workload,
)
from cluster.shell import wait_for
from conftest import StartPod

PODS = "/api/v1/namespaces/default/pods"
NUMBER = 200
# So many are there at a time, which is more than there are devices.
AHEAD = 12


def test_pods_that_come_and_go_at_once_leave_every_device_free(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod, measured: Callable[[str], None]
) -> None:
    began = time.monotonic()
    with api.connected(cluster) as connection, AllocatableWatch(cluster) as watch:
        for number in range(NUMBER + AHEAD):
            if number < NUMBER:
                pod = workload(f"brief-{number}", 1)
                pod["metadata"]["labels"] = {"stream": "brief"}
                connection.request("POST", PODS, pod)
            if number >= AHEAD:
                connection.request("DELETE", f"{PODS}/brief-{number - AHEAD}")
        asked = time.monotonic() - began
        wait_for(
            "every pod to be gone",
            lambda: not cluster.find("pods", selector="stream=brief"),
            seconds=120,
        )
        watch.assert_never_below(6)
    events = [
        event for event in cluster.find("events") if event["involvedObject"]["name"][:6] == "brief-"
    ]
    placed = {e["involvedObject"]["name"] for e in events if e["reason"] == "Scheduled"}
    refused = [e["message"] for e in events if e["reason"] == "UnexpectedAdmissionError"]
    measured(
        f"{NUMBER} pods created and deleted in {asked:.1f} s, {len(placed)} of them placed,"
        f" {len(refused)} refused; all gone after {time.monotonic() - began:.1f} s"
    )
    assert placed
    assert not refused
    assert len(set(assigned(cluster, start_pod("all", 6)).ids)) == 6


@pytest.fixture
def no_idle_processor() -> Iterator[None]:
    """Two busy processes for each processor."""
    command = [str(BUSYBOX), "sh", "-c", "while :; do :; done"]
    busy = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for process in busy:
        process.kill()
        process.wait()


def test_a_kubelet_restart_without_an_idle_processor(
    cluster: Cluster,
    plugin: Plugin,
    start_pod: StartPod,
    measured: Callable[[str], None],
    no_idle_processor: None,
) -> None:
    start_pod("before", 2)
    running, given = container_identity(cluster, "before"), assigned(cluster, "before")
    log = cluster.services.log("kubelet")
    before = log.stat().st_size
    with AllocatableWatch(cluster) as watch:
        cluster.restart_kubelet()
        made = cluster.layout.kubelet_socket.stat().st_ctime
        wait_for_status_posts(cluster)
    text = log.read_bytes()[before:].decode(errors="replace")
    listed = klog.moments(text, "State pushed for device plugin")
    wait_for_count(cluster, 6)
    measured(
        f"a kubelet restart without an idle processor: devices back"
        f" {1000 * (listed[0] - made):.1f} ms after the new socket, lowest count {min(watch.seen)}"
    )
    assert container_identity(cluster, "before") == running
    after = assigned(cluster, start_pod("after", 4))
    assert not set(after.ids) & set(given.ids)
