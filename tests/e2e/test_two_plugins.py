"""Two copies of the plugin on one node, as during a rolling update: whichever ends, the
other one stays registered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.plugin import (
    NAMESPACE,
    Plugin,
    assigned,
    plugin_pod,
    wait_for_count,
    wait_for_nothing_offered,
    wait_for_plugin_processes,
    wait_for_status_posts,
)
from cluster.shell import wait_for
from conftest import StartPod


@pytest.fixture
def two_copies(cluster: Cluster, simulated_image: Path) -> Iterator[tuple[str, str]]:
    cluster.import_image(simulated_image)
    names = ("older", "newer")
    for name in names:
        cluster.create(plugin_pod(name))
        Plugin(cluster, f"copy={name}").pod()
        wait_for(f"the log of {name}", lambda: cluster.logs(name, NAMESPACE), seconds=30)  # noqa: B023
        wait_for_status_posts(cluster)
        wait_for_count(cluster, 6)
    yield names
    cluster.discard("pod", *names, namespace=NAMESPACE)
    wait_for_plugin_processes(cluster, 0)
    wait_for_nothing_offered(cluster)


@pytest.mark.parametrize("leaving", ["older", "newer"])
def test_the_one_that_stays_keeps_the_node_supplied(
    cluster: Cluster, two_copies: tuple[str, str], start_pod: StartPod, leaving: str
) -> None:
    assert len(assigned(cluster, start_pod("both-there", 2)).ids) == 2
    cluster.delete("pod", leaving, NAMESPACE, wait=False)
    wait_for_plugin_processes(cluster, 1)
    wait_for_status_posts(cluster)
    wait_for_count(cluster, 6)
    assert len(assigned(cluster, start_pod("one-left", 4)).ids) == 4
    # And what it says about health still counts.
    survivor = next(name for name in two_copies if name != leaving)
    plugin = Plugin(cluster, f"copy={survivor}")
    chip = next(iter(plugin.devices()))
    plugin.simulate("inject", chip, "ecc")
    wait_for_count(cluster, 5, capacity=6)
    plugin.simulate("heal", chip)
    wait_for_count(cluster, 6)
