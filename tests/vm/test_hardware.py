"""What hardware can do beside leaving: errors, links, resets, sleep, other drivers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.shell import output, wait_for
from node.bus import FEW, Bus
from node.measured import Measured
from node.plugin import reasons, shown
from node.running import Node, running_node

SECONDS = 60.0


@pytest.fixture(scope="module")
def node(bus: Bus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The plugin on four chips, each of which counts as healthy as soon as it is."""
    folder = tmp_path_factory.mktemp("node")
    with bus.plugged_in(FEW), running_node(folder, "--recovery-seconds", "0") as node:
        node.kubelet.wait_for_count(4)
        yield node


def test_errors_that_are_not_fatal_condemn_no_chip(bus: Bus, node: Node) -> None:
    chip = bus.chips()[0]
    with bus.errors_on(chip) as report:
        report(0x1, 0)  # receiver error
        report(0, 0x4000)  # completion time-out
        counted = {"correctable": 1, "nonfatal": 1, "fatal": 0}
        wait_for("the kernel to count them", lambda: bus.errors(chip) == counted, seconds=SECONDS)
    assert shown(chip)["aer"] == counted
    assert chip in node.kubelet.healthy()


def test_where_the_kernel_counts_a_fatal_error(bus: Bus, node: Node, measured: Measured) -> None:
    """Not at the chip that reports it, which is taken for out of reach: at a port, if the port
    itself found it. Linux 6.1: aer_get_device_error_info() of drivers/pci/pcie/aer.c."""
    chip = bus.chips()[1]
    port = bus.above(chip)[-1]
    for victim in (chip, port):
        with bus.errors_on(victim) as report:
            report(0, 0x40000)  # malformed packet
            wait_for(
                "the kernel to reset the link",
                lambda: "device recovery failed" in _new_messages(),
                seconds=SECONDS,
            )
    measured(f"fatal errors counted: chip {bus.errors(chip)}, port {bus.errors(port)}")
    assert bus.errors(chip)["fatal"] == 0
    assert bus.errors(port)["fatal"] == 1


def _new_messages() -> str:
    """The kernel's messages since the last call."""
    return output(["dmesg", "--read-clear"])


def test_a_slower_link_is_a_warning(bus: Bus, node: Node) -> None:
    chip = bus.chips()[1]
    bus.order(chip, "link", 8, 2)
    try:
        assert "link-degraded" in reasons(chip)
        assert chip in node.kubelet.healthy()
    finally:
        bus.order(chip, "link", 16, 3)


def test_a_link_as_good_as_its_port_is_no_warning(bus: Bus, node: Node) -> None:
    """A port of eight lanes: the chip can do more, and the link cannot."""
    chip = bus.chips()[1]
    port = bus.above(chip)[-1]
    bus.order(port, "most", 8, 3)
    for end in (chip, port):
        bus.order(end, "link", 8, 3)
    try:
        assert "link-degraded" not in reasons(chip)
    finally:
        bus.order(port, "most", 16, 3)
        for end in (chip, port):
            bus.order(end, "link", 16, 3)


def test_a_chip_that_is_slow_to_read_holds_nobody_up(bus: Bus, node: Node) -> None:
    """During a reset the kernel has whoever reads a configuration space wait. What happens to
    the others is seen meanwhile, and pods start."""
    slow, *_, leaves = bus.chips()
    bus.order(slow, "hold")
    try:
        bus.remove(leaves)
        node.kubelet.wait_for_device(leaves, healthy=False)
        node.kubelet.admit("pod", 1)
        node.kubelet.delete("pod")
    finally:
        bus.order(slow, "release")
        bus.rescan()
        node.kubelet.wait_for_count(4)


def test_a_chip_that_another_driver_has_is_not_offered(bus: Bus, node: Node) -> None:
    """As when a virtual machine is to have it."""
    chip = bus.chips()[2]
    bus.modprobe("pci-stub")
    bus.unbind(chip)
    bus.bind(chip, "pci-stub")
    node.kubelet.wait_for_device(chip, healthy=False)
    assert bus.driver(chip) == "pci-stub"
    bus.give_back(chip)
    node.kubelet.wait_for_device(chip, healthy=True)


def test_a_chip_that_sleeps_is_healthy(bus: Bus, node: Node) -> None:
    """And is left asleep: D3hot, by the kernel's runtime power management."""
    chip = bus.chips()[2]
    bus.set(chip, "power/control", "auto")
    try:
        wait_for("it to sleep", lambda: bus.says(chip, "power_state") == "D3hot", seconds=SECONDS)
        bus.announce(chip)
        assert shown(chip)["healthy"]
        assert bus.says(chip, "power_state") == "D3hot"
    finally:
        bus.set(chip, "power/control", "on")
    assert chip in node.kubelet.healthy()
