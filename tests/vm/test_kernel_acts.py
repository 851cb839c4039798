"""What the kernel does to cards, and how soon the kubelet's list says so: a node of 24."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node.bus import DEVICES, USUAL, Bus
from node.measured import Measured, Stopwatch
from node.package import FakeHost
from node.running import Node, running_node

ALL = 24
IDLE_SECONDS = 20


@pytest.fixture(scope="module")
def node(bus: Bus, measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The plugin on 24 chips, each of which counts as healthy as soon as it is."""
    folder = tmp_path_factory.mktemp("node")
    with bus.plugged_in(USUAL):
        watch = Stopwatch()
        with running_node(folder, "--recovery-seconds", "0") as node:
            node.kubelet.wait_for_count(ALL)
            measured.act("start to 24 devices", watch.seconds)
            yield node


@pytest.fixture(autouse=True)
def complete(bus: Bus, node: Node) -> Iterator[None]:
    """All chips are there, before a test and after it."""
    yield
    bus.rescan()
    node.kubelet.wait_for_count(ALL)


def test_a_chip_is_removed_and_found_again(bus: Bus, node: Node, measured: Measured) -> None:
    chip = bus.chips()[4]
    watch = Stopwatch()
    bus.remove(chip)
    node.kubelet.wait_for_device(chip, healthy=False)
    measured.act("chip removed", watch.seconds)
    assert len(node.kubelet.healthy()) == ALL - 1
    watch = Stopwatch()
    bus.rescan()
    node.kubelet.wait_for_device(chip, healthy=True)
    measured.act("chip rescanned", watch.seconds)


@pytest.mark.parametrize(("port", "what"), [(1, "card removed"), (0, "root port removed")])
def test_a_port_is_removed_with_all_behind_it(
    bus: Bus, node: Node, measured: Measured, port: int, what: str
) -> None:
    chip = bus.chips()[5]
    victim = bus.above(chip)[port]
    behind = {each for each in bus.chips() if victim in bus.above(each)}
    assert len(behind) == 3
    watch = Stopwatch()
    bus.remove(victim)
    node.kubelet.wait_for_count(ALL - 3)
    measured.act(what, watch.seconds)
    assert node.kubelet.healthy().isdisjoint(behind)


def test_a_driver_is_unbound_and_bound(bus: Bus, node: Node, measured: Measured) -> None:
    chip = bus.chips()[7]
    watch = Stopwatch()
    bus.unbind(chip)
    node.kubelet.wait_for_device(chip, healthy=False)
    measured.act("driver unbound", watch.seconds)
    watch = Stopwatch()
    bus.bind(chip)
    node.kubelet.wait_for_device(chip, healthy=True)
    measured.act("driver bound", watch.seconds)


@pytest.mark.parametrize(
    ("verb", "what"), [("ones", "reads are all ones"), ("gone", "function does not answer")]
)
def test_a_chip_no_longer_answers(
    bus: Bus, node: Node, measured: Measured, verb: str, what: str
) -> None:
    """The kernel does not notice either, and sends no event."""
    chip = bus.chips()[9]
    watch = Stopwatch()
    bus.order(chip, verb)
    node.kubelet.wait_for_device(chip, healthy=False)
    measured.act(what, watch.seconds)
    bus.order(chip, "back")
    node.kubelet.wait_for_device(chip, healthy=True)


def test_cards_are_removed_while_they_are_read(bus: Bus, node: Node) -> None:
    """Whoever reads attributes and nodes of a card that goes gets errors, nothing worse."""
    chips = bus.chips()
    ended = threading.Event()
    reads = itertools.count()

    def read_all() -> None:
        while not ended.is_set():
            for chip in chips:
                for folder, _, files in os.walk(DEVICES / chip):
                    for name in {"config", "uevent", "current_link_speed", "dev"} & set(files):
                        next(reads)
                        try:
                            with open(f"{folder}/{name}", "rb") as file:
                                file.read(64)
                        except OSError:
                            pass

    reader = threading.Thread(target=read_all)
    reader.start()
    try:
        for _ in range(3):
            for port in {bus.above(chip)[0] for chip in bus.chips()}:
                bus.remove(port)
            bus.rescan()
    finally:
        ended.set()
        reader.join()
    assert next(reads) > 100
    node.kubelet.wait_for_count(ALL)
    assert node.kubelet.healthy() == set(chips)


def test_a_storm_of_events(bus: Bus, node: Node, measured: Measured) -> None:
    """1,000 of them change nothing, and what does change after them is seen."""
    chips = bus.chips()
    lists, cpu = node.kubelet.lists(), node.plugin.cpu_seconds()
    watch = Stopwatch()
    for number in range(1000):
        bus.announce(chips[number % len(chips)])
    took = watch.seconds
    watch = Stopwatch()
    bus.remove(chips[0])
    node.kubelet.wait_for_device(chips[0], healthy=False)
    measured.act("chip removed after 1,000 events", watch.seconds)
    used = node.plugin.cpu_seconds() - cpu
    measured(f"1,000 uevents in {took:.2f} s: {used:.2f} s of the plugin's processor time")
    assert node.kubelet.lists() == lists + 1


def test_an_idle_node(node: Node, measured: Measured) -> None:
    """What 24 chips cost while nothing happens; and nothing is sent."""
    lists, cpu = node.kubelet.lists(), node.plugin.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    used = node.plugin.cpu_seconds() - cpu
    measured(f"idle with 24 chips: {100 * used / IDLE_SECONDS:.1f} % of a processor (emulated)")
    assert node.kubelet.lists() == lists


def test_the_same_on_a_tree_of_files(tmp_path: Path, measured: Measured) -> None:
    """For comparison: where inotify tells of what changes."""
    host = FakeHost(tmp_path / "root")
    for card in range(8):
        host.s30(0x34 + 5 * card)
    arguments = ("--host-root", str(host.root), "--recovery-seconds", "0")
    watch = Stopwatch()
    with running_node(tmp_path, *arguments) as node:
        node.kubelet.wait_for_count(ALL)
        measured.act("start to 24 devices", watch.seconds, "files")
        chip, other, *_ = sorted(node.kubelet.healthy())
        watch = Stopwatch()
        (host.sys / "bus/pci/devices" / other / "driver").unlink()
        node.kubelet.wait_for_device(other, healthy=False)
        measured.act("driver unbound", watch.seconds, "files")
        watch = Stopwatch()
        host.set(chip, "config", b"\xff" * 64)
        node.kubelet.wait_for_device(chip, healthy=False)
        measured.act("reads are all ones", watch.seconds, "files")
        watch = Stopwatch()
        host.remove(third := sorted(node.kubelet.healthy())[0])
        node.kubelet.wait_for_device(third, healthy=False)
        measured.act("chip removed", watch.seconds, "files")
