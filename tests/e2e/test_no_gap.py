"""Nobody sees the plugin or the kubelet being replaced: no count drops, no pod fails."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cluster import api, klog
from cluster.cluster import Cluster, Object
from cluster.plugin import (
    NAMESPACE,
    AllocatableWatch,
    Plugin,
    plugin_processes,
    wait_for_count,
    wait_for_plugin_processes,
    wait_for_status_posts,
    workload,
)
from cluster.shell import wait_for

DAEMONSET = "moffett-device-plugin-daemonset"
PODS = "/api/v1/namespaces/default/pods"
CREATION_SECONDS = 0.1
ROLLS = 5

Measured = Callable[[str], None]


def test_no_kubelet_restart_is_seen(
    cluster: Cluster, plugin: Plugin, measured: Measured, pytestconfig: pytest.Config
) -> None:
    log = cluster.services.log("kubelet")
    took = []
    with AllocatableWatch(cluster) as watch:
        for number in range(pytestconfig.getoption("--restarts")):
            before = log.stat().st_size
            cluster.restart_kubelet(signal.SIGKILL if number % 2 else signal.SIGTERM)
            made = cluster.layout.kubelet_socket.stat().st_ctime
            wait_for_status_posts(cluster)
            watch.assert_never_below(6)
            text = log.read_bytes()[before:].decode(errors="replace")
            listed = klog.moments(text, "State pushed for device plugin")
            took.append(1000 * (listed[0] - made))
    middle = statistics.median(took)
    measured(
        f"{len(took)} kubelet restarts: devices back {min(took):.1f} to {max(took):.1f} ms"
        f" (median {middle:.1f}) after the new socket; {len(watch.seen)} values on the"
        f" watch, {sum(value < 6 for value in watch.seen)} drops"
    )


def passing(name: str) -> Object:
    """Return a pod that asks for a device and ends at once."""
    pod = workload(name, 1)
    pod["metadata"]["labels"] = {"stream": "passing"}
    pod["spec"]["containers"][0]["command"] = ["/bin/true"]
    return pod


@contextmanager
def a_stream_of_pods(cluster: Cluster) -> Iterator[list[str]]:
    """Create a pod every moment for the length of a block; yields the growing list of names."""
    names: list[str] = []
    failures: list[BaseException] = []
    ended = threading.Event()

    def create(connection: api.Api) -> None:
        try:
            while not ended.wait(CREATION_SECONDS):
                name = f"passing-{len(names)}"
                connection.request("POST", PODS, passing(name))
                names.append(name)
        except BaseException as failure:
            failures.append(failure)

    with api.connected(cluster) as connection:
        creator = threading.Thread(target=create, args=(connection,))
        creator.start()
        try:
            yield names
        finally:
            ended.set()
            creator.join()
    assert not failures, failures


@pytest.fixture
def surging(cluster: Cluster, plugin: Plugin) -> Iterator[Plugin]:
    """The manual's DaemonSet, rolled with the new pod first; that is ready, and the old one
    goes, when the kubelet has its devices. Without a probe a pod is ready as soon as its
    container runs."""
    if cluster.minor < (1, 22):
        pytest.skip("a DaemonSet has maxSurge from Kubernetes 1.22 on")
    container = {
        "name": "moffett-device-plugin-ctr",
        "env": [{"name": "SPU_METRICS_ADDRESS", "value": ":9400"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9400}, "periodSeconds": 1},
    }
    patch = {
        "spec": {
            "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"spec": {"containers": [container]}},
        }
    }
    old = plugin.pod()
    cluster.kubectl("-n", NAMESPACE, "patch", "daemonset", DAEMONSET, "-p", json.dumps(patch))
    wait_for_replacement(cluster, plugin, old)
    yield plugin
    delete_stream(cluster)


def delete_stream(cluster: Cluster, selector: str = "") -> None:
    """Delete the stream's pods by one request: there are hundreds."""
    with api.connected(cluster) as connection:
        path = f"{PODS}?labelSelector=stream%3Dpassing{selector}"
        connection.request("DELETE", path, {"gracePeriodSeconds": 0})


def roll(cluster: Cluster, plugin: Plugin) -> None:
    """Replace the plugin's pod by another of the same kind."""
    old = plugin.pod()
    cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "daemonset", DAEMONSET)
    wait_for_replacement(cluster, plugin, old)


def wait_for_replacement(cluster: Cluster, plugin: Plugin, old: str) -> None:
    wait_for("the new plugin pod", lambda: plugin.pods() not in ([], [old]), seconds=60)
    wait_for("the old plugin pod to go", lambda: old not in plugin.pods(), seconds=60)
    wait_for_plugin_processes(cluster, 1)


def ended(cluster: Cluster) -> list[Object]:
    """Return the stream's pods that were placed, when all of them have ended.

    More are made than the devices are enough for; those that still wait for one when the
    stream ends have nothing to show.
    """
    delete_stream(cluster, "&fieldSelector=spec.nodeName%3D")

    def placed() -> list[Object]:
        pods = cluster.find("pods", selector="stream=passing")
        return pods if all(p["status"]["phase"] in ("Succeeded", "Failed") for p in pods) else []

    return wait_for("every pod to have ended", placed, seconds=300)


def milliseconds_without_a_plugin(log: str) -> list[float]:
    """Return how long the kubelet had nobody to allocate devices, each time, by its own log."""
    listed = klog.moments(log, "State pushed for device plugin")
    return [
        1000 * min((other - moment for other in listed if other > moment), default=math.inf)
        for moment in klog.moments(log, "Mark all resources Unhealthy for resource")
    ]


def test_how_long_there_is_no_plugin_when_the_only_one_ends(
    cluster: Cluster, plugin: Plugin, measured: Measured
) -> None:
    """Without `maxSurge` the old pod goes first; and a plugin that is killed is started again
    by the kubelet. Nothing can be allocated in between; the devices are back after it."""
    log = cluster.services.log("kubelet")
    lengths = []
    for ends in (plugin.delete_pod, lambda: os.kill(plugin_processes(cluster)[0], signal.SIGKILL)):
        before, (process,) = log.stat().st_size, plugin_processes(cluster)
        ends()

        def another(process: int = process) -> bool:
            processes = plugin_processes(cluster)
            return len(processes) == 1 and process not in processes

        wait_for("another process of the plugin", another, seconds=120)

        def closed(before: int = before) -> list[float]:
            gaps = milliseconds_without_a_plugin(log.read_bytes()[before:].decode(errors="replace"))
            return gaps if gaps and math.inf not in gaps else []

        lengths.append(max(wait_for("the end of the gap", closed, seconds=120)))
        wait_for_count(cluster, 6)
    measured(
        f"Kubernetes {cluster.programs.version} without a plugin: {lengths[0]:.0f} ms when its pod"
        f" is replaced, {lengths[1]:.0f} ms when it is killed"
    )


def test_no_pod_fails_while_the_plugin_is_rolled(
    cluster: Cluster, surging: Plugin, measured: Measured
) -> None:
    log = cluster.services.log("kubelet")
    before = log.stat().st_size
    began = time.monotonic()
    with AllocatableWatch(cluster) as watch, a_stream_of_pods(cluster) as names:
        wait_for("the first pods", lambda: len(names) > 3, seconds=30)
        for _ in range(ROLLS):
            roll(cluster, surging)
        wait_for_status_posts(cluster, 3)
        lowest = min(watch.seen)
    rolled = time.monotonic() - began
    text = log.read_bytes()[before:].decode(errors="replace")
    gaps = milliseconds_without_a_plugin(text)
    cleared = len(klog.moments(text, "Failed to connect to new client"))
    pods = ended(cluster)
    failed = {
        pod["metadata"]["name"]: (pod["status"].get("reason"), pod["status"].get("message"))
        for pod in pods
        if pod["status"]["phase"] == "Failed"
    }
    measured(
        f"{ROLLS} rolls on Kubernetes {cluster.programs.version}, {rolled:.0f} s: {len(names)} pods"
        f" created, {len(pods)} placed, {len(failed)} failed, lowest count {lowest};"
        f" {len(gaps)} times without a plugin"
        + (f", {max(gaps):.1f} ms at most" if gaps else "")
        + f"; {cleared} registrations that were to fail"
    )
    # Where the options are asked for, the one that stays clears the kubelet's client each time.
    assert cleared >= ROLLS or cluster.minor < (1, 25)
    # Whether a pod comes in just these milliseconds is chance; that they are there is not.
    assert not gaps, f"the kubelet had no plugin for {gaps} ms"
    assert not failed
    assert lowest == 6, "the count dropped"
