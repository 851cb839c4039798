"""Devices that fail leave the node's offer, and come back when they are well again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from cluster.cluster import Cluster
from cluster.plugin import (
    Plugin,
    assigned,
    container_identity,
    wait_for_count,
)
from cluster.shell import wait_for
from conftest import StartPod


@pytest.fixture
def healthy(cluster: Cluster, plugin: Plugin) -> Iterator[Plugin]:
    """The plugin, with whatever the test broke mended afterwards."""
    yield plugin
    for id_, device in plugin.devices().items():
        if not device["healthy"]:
            plugin.simulate("heal", id_)
    wait_for_count(cluster, 6)


@pytest.mark.parametrize("fault", ["ecc", "driver", "hot"])
def test_a_failed_chip_is_not_offered_until_it_heals(
    cluster: Cluster, healthy: Plugin, fault: str
) -> None:
    chip = next(iter(healthy.devices()))
    healthy.simulate("inject", chip, fault)
    wait_for_count(cluster, 5, capacity=6)
    device = healthy.devices()[chip]
    assert not device["healthy"]
    assert all(reason["code"] and reason["message"] for reason in device["reasons"])
    assert device["reasons"]

    healthy.simulate("heal", chip)
    wait_for_count(cluster, 6)
    assert healthy.devices()[chip]["healthy"]


def test_a_failed_chip_is_given_to_nobody(
    cluster: Cluster, healthy: Plugin, start_pod: StartPod
) -> None:
    chip = next(iter(healthy.devices()))
    healthy.simulate("inject", chip, "ecc")
    wait_for_count(cluster, 5, capacity=6)
    assert chip not in assigned(cluster, start_pod("all-that-is-left", 5)).ids


def test_a_card_reboots_with_nothing_restarted(
    cluster: Cluster, healthy: Plugin, start_pod: StartPod
) -> None:
    start_pod("bystander")
    pod = healthy.pod()
    bystander = container_identity(cluster, "bystander")
    devices = healthy.devices()
    chip = next(iter(devices))
    card = {id_ for id_, device in devices.items() if device["card"] == devices[chip]["card"]}
    assert len(card) == 3

    healthy.simulate("reboot", chip, "--seconds", "6")
    wait_for_count(cluster, 3, capacity=6)
    wait_for_count(cluster, 6)
    assert healthy.pod() == pod
    assert container_identity(cluster, "bystander") == bystander
    assert len(assigned(cluster, start_pod("afterwards", 6)).ids) == 6


def test_a_removed_chip_comes_back(cluster: Cluster, healthy: Plugin) -> None:
    chip = next(iter(healthy.devices()))
    healthy.simulate("remove", chip)
    wait_for(
        "five devices to be left",
        lambda: cluster.node()["status"]["allocatable"].get("moffett.ai/spu") == "5",
        seconds=30,
    )
    healthy.simulate("restore", chip)
    wait_for_count(cluster, 6)


def test_a_cordoned_chip_is_not_offered_and_its_pod_stays(
    cluster: Cluster, healthy: Plugin, start_pod: StartPod, measured: Callable[[str], None]
) -> None:
    chip = assigned(cluster, start_pod("holder", 1)).ids[0]
    holder = container_identity(cluster, "holder")
    began = time.monotonic()
    healthy.run("cordon", chip, "--reason", "memory errors")
    wait_for_count(cluster, 5, capacity=6)
    measured(f"from `cordon` to the node's count, kubectl exec included: "
             f"{time.monotonic() - began:.2f} s")  # fmt: skip
    (reason,) = healthy.devices()[chip]["reasons"]
    assert (reason["code"], reason["message"]) == (
        "cordoned",
        "by the command cordon: memory errors",
    )
    assert chip not in assigned(cluster, start_pod("others", 4)).ids
    assert container_identity(cluster, "holder") == holder
    healthy.run("uncordon", chip)
    wait_for_count(cluster, 6)
