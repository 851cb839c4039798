"""A kubelet with a `--root-dir` of its own: the directory of device plugins stays where it
always is, the pod-resources socket goes with the root."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from cluster import pod_resources
from cluster.cluster import Cluster
from cluster.plugin import (
    NAMESPACE,
    RESOURCE,
    Plugin,
    assigned,
    plugin_pod,
    wait_for_count,
    wait_for_nothing_offered,
    wait_for_plugin_processes,
)
from conftest import StartPod


def test_only_pod_resources_follows_the_root(
    cluster: Cluster, simulated_image: Path, start_pod: StartPod
) -> None:
    cluster.import_image(simulated_image)
    root = cluster.layout.state / "kubelet-root"
    # Of two flags of one name a kubelet takes the later one.
    prefix = ("sh", "-c", f'exec "$@" --root-dir={root}', "sh")
    # Returns when the kubelet has made its socket anew, in the same place.
    with cluster.changed_kubelet(*prefix):
        assert not (root / "device-plugins").exists()
        cluster.create(plugin_pod("rooted"))
        try:
            Plugin(cluster, "copy=rooted").pod()
            wait_for_count(cluster, 6)
            given = assigned(cluster, start_pod("two", 2))
            socket = root / "pod-resources" / "kubelet.sock"
            listed = pod_resources.listed("v1", "two", RESOURCE, socket)
            assert listed == sorted(given.ids)
            with pytest.raises(grpc.RpcError):
                pod_resources.listed("v1", "two", RESOURCE)
        finally:
            cluster.discard("pod", "two")
            cluster.discard("pod", "rooted", namespace=NAMESPACE)
            wait_for_plugin_processes(cluster, 0)
            wait_for_nothing_offered(cluster)
