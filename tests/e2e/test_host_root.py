"""The plugin with a host's root below /host: chips found in a sysfs tree, device nodes that
really exist, and containers whose device cgroup lets them open their own and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.fake_host import Chip, FakeHost, free_major, two_s30_cards
from cluster.plugin import Plugin, assigned, wait_for_count
from cluster.shell import wait_for
from conftest import MANIFESTS, StartPod

# The kernel's words, as busybox prints them, for a node that has no driver, and for one
# that the container's device cgroup refuses.
LET_THROUGH = "No such device or address"
REFUSED = "Operation not permitted"


@pytest.fixture(scope="module")
def fake_host(cluster: Cluster) -> Iterator[FakeHost]:
    major = free_major(Path("/proc/devices").read_text())
    fake = FakeHost(cluster.layout.state / "host", two_s30_cards(major))
    fake.unmake()
    try:
        fake.make()
        yield fake
    finally:
        fake.unmake()


@pytest.fixture(scope="module")
def plugin(cluster: Cluster, plugin_image: Path, fake_host: FakeHost) -> Iterator[Plugin]:
    cluster.import_image(plugin_image)
    cluster.create(MANIFESTS / "host-root.yml")
    running = Plugin(cluster, "name=host-root-plugin")
    try:
        wait_for_count(cluster, 6)
        yield running
    finally:
        running.discard("host-root-plugin")


def opening(cluster: Cluster, pod: str, path: str) -> str:
    """Return what the kernel says to a container that opens a path."""
    return cluster.exec(pod, "cat", path, check=False).stderr


def opening_own_copy(cluster: Cluster, pod: str, chip: Chip) -> str:
    """Return what the kernel says to a container that makes itself a chip's node."""
    path = f"/tmp/{chip.node}"
    cluster.exec(pod, "mknod", path, "c", str(chip.major), str(chip.minor))
    return opening(cluster, pod, path)


def test_the_chips_are_described_as_the_host_shows_them(
    plugin: Plugin, fake_host: FakeHost
) -> None:
    devices = plugin.devices()
    assert set(devices) == {chip.bus_id for chip in fake_host.chips}
    for chip in fake_host.chips:
        device = devices[chip.bus_id]
        assert device["healthy"], device["reasons"]
        assert (device["index"], device["numa_node"]) == (chip.index, chip.numa_node)
        assert "S30" in device["product"]
        assert device["driver"] == "moffett"
    assert len({device["card"] for device in devices.values()}) == 2


def test_a_pod_can_open_its_own_nodes_and_no_other(
    cluster: Cluster, plugin: Plugin, fake_host: FakeHost, start_pod: StartPod
) -> None:
    given = assigned(cluster, start_pod("two", 2))
    own = [chip for chip in fake_host.chips if chip.bus_id in given.ids]
    others = [chip for chip in fake_host.chips if chip.bus_id not in given.ids]
    assert len(own) == 2
    assert given.nodes == tuple(sorted(f"/dev/{chip.node}" for chip in own))
    for chip in own:
        assert LET_THROUGH in opening(cluster, "two", f"/dev/{chip.node}")
    for chip in others:
        assert REFUSED in opening_own_copy(cluster, "two", chip)


def test_two_pods_have_different_nodes(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    first = assigned(cluster, start_pod("first", 3))
    second = assigned(cluster, start_pod("second", 3))
    assert not set(first.nodes) & set(second.nodes)
    assert len(first.nodes) == len(second.nodes) == 3


def test_a_card_that_reboots_comes_back_with_its_new_nodes(
    cluster: Cluster, plugin: Plugin, fake_host: FakeHost, start_pod: StartPod
) -> None:
    pod = plugin.pod()
    old = [chip for chip in fake_host.chips if chip.card == 0]
    new = fake_host.rebooted(0)
    fake_host.remove(old)
    wait_for(
        "the other card's chips to be left",
        lambda: cluster.node()["status"]["allocatable"].get("moffett.ai/spu") == "3",
        seconds=30,
    )
    fake_host.add(new)
    wait_for_count(cluster, 6)
    assert plugin.pod() == pod
    start_pod("all", 6)
    for chip in new:
        assert LET_THROUGH in opening(cluster, "all", f"/dev/{chip.node}")
        listing = cluster.exec("all", "ls", "-l", f"/dev/{chip.node}").stdout
        assert f"{chip.major}, {chip.minor:3}" in listing
