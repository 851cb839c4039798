"""A node that shuts down: the kubelet ends workloads first and the plugin last, and a
shutdown that is called off brings everything back. Everything but logind is real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cluster import host, logind
from cluster.cluster import Cluster
from cluster.plugin import (
    Plugin,
    assigned,
    plugin_processes,
    wait_for_count,
    wait_for_phase,
    wait_for_status_posts,
    workload,
)
from cluster.shell import wait_for
from conftest import StartPod

# Takes a while to end, as a workload that saves its state does.
SLOW_TO_END = "trap 'sleep 3; exit 0' TERM; while :; do sleep 3600 & wait $!; done"


@pytest.fixture
def bus(cluster: Cluster, plugin: Plugin) -> Iterator[logind.Logind]:
    settings = {"shutdownGracePeriod": "25s", "shutdownGracePeriodCriticalPods": "10s"}
    gates = {"featureGates": {"GracefulNodeShutdown": True}} if cluster.minor < (1, 21) else {}
    with (
        logind.serving(cluster.layout.state / "system-bus") as serving,
        cluster.changed_kubelet(*serving.prefix, **settings, **gates),
    ):
        serving.wait_for_kubelet()
        # A kubelet that has only begun may still count the devices of pods that are gone.
        wait_for_status_posts(cluster)
        wait_for_count(cluster, 6)
        yield serving
        cluster.discard("pod", "slow")


def workload_lives(cluster: Cluster) -> bool:
    """Tell whether the slow workload's shell still runs."""
    for pid in host.processes(cluster.layout):
        with suppress(OSError):
            if SLOW_TO_END.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return True
    return False


def test_workloads_end_before_the_plugin_and_come_back_if_it_is_called_off(
    cluster: Cluster, plugin: Plugin, bus: logind.Logind, start_pod: StartPod
) -> None:
    slow = workload("slow", 2)
    slow["spec"]["terminationGracePeriodSeconds"] = 10
    slow["spec"]["containers"][0]["command"] = ["/bin/sh", "-c", SLOW_TO_END]
    cluster.create(slow)
    wait_for_phase(cluster, "slow")

    bus.prepare_for_shutdown(True)

    def plugin_has_gone() -> bool:
        gone = not plugin_processes(cluster)
        # The workload takes seconds: a plugin that was ended along with it would be seen to.
        assert not (gone and workload_lives(cluster)), "the plugin ended first"
        return gone

    assert workload_lives(cluster)
    wait_for("the plugin's end", plugin_has_gone, seconds=60)
    bus.wait_for_release(30)

    bus.prepare_for_shutdown(False)
    wait_for_count(cluster, 6)
    assert len(assigned(cluster, start_pod("afterwards", 6)).ids) == 6
