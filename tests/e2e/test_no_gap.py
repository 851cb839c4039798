"""Nobody sees the plugin or the kubelet being replaced: no count drops, no pod fails."""

from __future__ import annotations

import json
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
    wait_for_plugin_processes,
    wait_for_status_posts,
    workload,
)
from cluster.shell import wait_for

DAEMONSET = "moffett-device-plugin-daemonset"
PODS = "/api/v1/namespaces/default/pods"
CREATION_SECONDS = 0.1

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
    """The manual's DaemonSet, rolled with the new pod first.

    A pod counts as ready when its container runs, a moment before the plugin in it has
    registered: `minReadySeconds` keeps the old one until then.
    """
    if cluster.minor < (1, 22):
        pytest.skip("a DaemonSet has maxSurge from Kubernetes 1.22 on")
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    patch = {"spec": {"minReadySeconds": 2, "updateStrategy": {"rollingUpdate": rolling}}}
    cluster.kubectl("-n", NAMESPACE, "patch", "daemonset", DAEMONSET, "-p", json.dumps(patch))
    yield plugin
    cluster.kubectl("delete", "pod", "-l", "stream=passing", "--force", "--grace-period=0")


def test_no_pod_fails_while_the_plugin_is_rolled(
    cluster: Cluster, surging: Plugin, measured: Measured
) -> None:
    old = surging.pod()
    began = time.monotonic()
    with AllocatableWatch(cluster) as watch, a_stream_of_pods(cluster) as names:
        wait_for("the first pods", lambda: len(names) > 3, seconds=30)
        restart = ("-n", NAMESPACE, "rollout", "restart", "daemonset", DAEMONSET)
        cluster.kubectl(*restart)
        wait_for("the new plugin pod", lambda: surging.pods() not in ([], [old]), seconds=60)
        wait_for("the old plugin pod to go", lambda: old not in surging.pods(), seconds=60)
        wait_for_plugin_processes(cluster, 1)
        wait_for_status_posts(cluster, 3)
    watch_low = min(watch.seen)
    rolled = time.monotonic() - began

    def ended() -> list[Object]:
        pods = cluster.find("pods", selector="stream=passing")
        return pods if all(p["status"]["phase"] in ("Succeeded", "Failed") for p in pods) else []

    pods = wait_for("every pod to have ended", ended, seconds=300)
    assert len(pods) == len(names)
    failed = {
        pod["metadata"]["name"]: (pod["status"].get("reason"), pod["status"].get("message"))
        for pod in pods
        if pod["status"]["phase"] == "Failed"
    }
    measured(f"a roll of {rolled:.1f} s: {len(pods)} pods created, {len(failed)} failed")
    assert not failed
    assert watch_low == 6, "the count dropped during the roll"
