"""How drivers may name and place their nodes, and that each pod gets those of its own chip."""

from __future__ import annotations

from pathlib import Path

import pytest
from node.bus import FEW, Bus, Cards, Driver
from node.plugin import shown
from node.running import running_node


def content_of(path: str) -> str:
    """The bus id of the function whose node this is: our driver's nodes say it."""
    return Path(path).read_text().strip()


@pytest.mark.parametrize(
    "driver",
    [
        Driver(),
        Driver(names="accel%n", node_class="accel", folder="accel/"),
        Driver(names="moffett/card%c-chip%k", node_class="moffett"),
        Driver(names="mxspu%n_q%p", per_chip=3),
        Driver(control="mxspu_ctl"),
        Driver(names="moffett/card%c-chip%k-%p", per_chip=2, control="moffett/control"),
    ],
    ids=["plain", "accel", "card-chip", "several", "control", "all"],
)
def test_a_pod_gets_the_nodes_of_its_chips(bus: Bus, tmp_path: Path, driver: Driver) -> None:
    with bus.plugged_in(FEW, driver), running_node(tmp_path) as node:
        node.kubelet.wait_for_count(4)
        for number in range(4):
            pod = node.kubelet.admit(f"pod{number}", 1)
            (chip,) = pod.device_ids
            given = [device.host_path for device in pod.response.devices]
            own = [path for path in given if content_of(path) == chip]
            shared = [path for path in given if content_of(path) == "control"]
            assert len(own) == driver.per_chip
            assert shared == ([f"/dev/{driver.control}"] if driver.control else [])
            assert sorted(given) == sorted(own + shared)


def test_nodes_of_nobody_are_not_handed_out(bus: Bus, tmp_path: Path) -> None:
    """Without a parent device, and of a class that is not the driver's by its name: no chip
    is offered, so no pod gets another's node."""
    with bus.plugged_in(FEW, Driver(parent=False)), running_node(tmp_path) as node:
        node.kubelet.wait_for("all chips", lambda health: len(health) == 4)
        assert node.kubelet.healthy() == set()


def test_the_setting_for_nodes_of_nobody_is_named(bus: Bus) -> None:
    with bus.plugged_in(FEW, Driver(parent=False)):
        reasons = shown(bus.chips()[0])["reasons"]
        assert any("deviceNodes" in reason["message"] for reason in reasons)


@pytest.mark.parametrize(
    ("driver", "arguments"),
    [
        (Driver(parent=False, node_class="spu_driver"), ()),
        (Driver(parent=False), ("--device-node", "/dev/mxspu{index}")),
        (Driver(names="spu/chip%n", parent=False), ("--device-node", "/dev/spu/chip*")),
    ],
    ids=["class of the driver's name", "index", "glob"],
)
def test_nodes_without_a_parent_are_told_apart(
    bus: Bus, tmp_path: Path, driver: Driver, arguments: tuple[str, ...]
) -> None:
    """By their number, or by the order of their minor numbers."""
    with bus.plugged_in(FEW, driver), running_node(tmp_path, *arguments) as node:
        node.kubelet.wait_for_count(4)
        for number in range(4):
            pod = node.kubelet.admit(f"pod{number}", 1)
            given = {content_of(device.host_path) for device in pod.response.devices}
            assert given == set(pod.device_ids)


@pytest.mark.parametrize(
    "cards",
    [
        Cards((1, 1, 1)),
        Cards((2, 2)),
        Cards((3, 1, 2, 3)),
        Cards((3, 3), sockets=1, numa=False),
        Cards((3, 1), domain=0x10000),
    ],
    ids=["S4", "two-chips", "mixed", "no-numa", "domain-10000"],
)
def test_cards_of_all_kinds(bus: Bus, tmp_path: Path, cards: Cards) -> None:
    """Every chip is offered, and a pod that asks for a card's worth gets one card."""
    with bus.plugged_in(cards), running_node(tmp_path) as node:
        node.kubelet.wait_for_count(sum(cards.chips))
        assert node.kubelet.healthy() == set(bus.chips())
        pod = node.kubelet.admit("whole", max(cards.chips))
        assert len({tuple(bus.above(chip)[:1]) for chip in pod.device_ids}) == 1
        assert {content_of(device.host_path) for device in pod.response.devices} == set(
            pod.device_ids
        )


def test_a_chip_comes_back_with_another_minor(bus: Bus, tmp_path: Path) -> None:
    """A pod that starts later gets the new node."""
    with (
        bus.plugged_in(FEW, Driver(names="moffett%n-%m", cyclic=True)),
        running_node(tmp_path, "--recovery-seconds", "0") as node,
    ):
        node.kubelet.wait_for_count(4)
        chip = bus.chips()[3]
        before = node.kubelet.admit("before", 4)
        bus.remove(chip)
        node.kubelet.wait_for_count(3)
        bus.rescan()
        node.kubelet.wait_for_count(4)
        node.kubelet.delete("before")
        after = node.kubelet.admit("after", 4)
        nodes = {
            content_of(device.host_path): device.host_path for device in after.response.devices
        }
        assert set(nodes) == set(bus.chips())
        assert nodes[chip] not in {device.host_path for device in before.response.devices}
