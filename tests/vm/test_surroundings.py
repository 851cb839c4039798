"""The plugin in the namespaces and with the mounts that a pod has: what changes on the bus
is seen there too, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from node.bus import FEW, Bus
from node.measured import Measured, Stopwatch
from node.running import Node, running_node

#: Far more than a rescan every second or so takes under emulation, far less than the minute
#: after which the plugin looks at everything anyway.
SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A shell script that prepares what the plugin sees, and the namespaces it is run in."""

    name: str
    namespaces: tuple[str, ...]
    script: str
    arguments: tuple[str, ...] = ()

    def prefix(self) -> tuple[str, ...]:
        """The command that becomes the plugin."""
        return (
            *("unshare", *self.namespaces, "sh", "-e", "-c"),
            f'{self.script}\nexec "$@"',
            "sh",
        )


#: As a container engine mounts it: the pod's own sysfs, read-only.
OWN_SYSFS = "mount -t sysfs -o ro sysfs /sys"
HOST_ROOT = ("--host-root", "/host")

ALL = (
    Surroundings("network namespace", ("--net", "--mount"), OWN_SYSFS),
    Surroundings("user namespace", ("--user", "--map-root-user", "--net", "--mount"), OWN_SYSFS),
    Surroundings("read-only sysfs", ("--mount",), "mount -o remount,bind,ro /sys"),
    Surroundings(
        "host root, all of it",
        ("--net", "--mount"),
        f"mkdir /host; mount --rbind / /host; mount -o remount,bind,ro /host; {OWN_SYSFS}",
        HOST_ROOT,
    ),
    Surroundings(
        "host root, parts of it",
        ("--net", "--mount"),
        "for part in sys/bus sys/dev sys/devices usr lib lib64; do"
        " mkdir -p /host/$part; mount --bind /$part /host/$part;"
        f" mount -o remount,bind,ro /host/$part; done; {OWN_SYSFS}",
        HOST_ROOT,
    ),
)


@pytest.fixture(scope="module", params=ALL, ids=lambda each: each.name)
def around(request: pytest.FixtureRequest) -> Surroundings:
    """Each in turn."""
    chosen: Surroundings = request.param
    return chosen


@pytest.fixture(scope="module")
def node(
    around: Surroundings, bus: Bus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """The plugin there, on four chips."""
    folder = tmp_path_factory.mktemp("node")
    arguments = ("--recovery-seconds", "0", *around.arguments)
    with bus.plugged_in(FEW), running_node(folder, *arguments, prefix=around.prefix()) as node:
        node.kubelet.wait_for_count(4)
        yield node


def test_a_chip_leaves(around: Surroundings, node: Node, bus: Bus, measured: Measured) -> None:
    chip = bus.chips()[0]
    watch = Stopwatch()
    bus.remove(chip)
    node.kubelet.wait_for_device(chip, healthy=False, seconds=SECONDS)
    measured.act("chip removed", watch.seconds, around.name)


def test_it_comes_back(around: Surroundings, node: Node, bus: Bus, measured: Measured) -> None:
    here = set(bus.chips())
    watch = Stopwatch()
    bus.rescan()
    (chip,) = set(bus.chips()) - here
    node.kubelet.wait_for_device(chip, healthy=True, seconds=SECONDS)
    measured.act("chip rescanned", watch.seconds, around.name)


def test_a_driver_leaves(around: Surroundings, node: Node, bus: Bus, measured: Measured) -> None:
    chip = bus.chips()[-1]
    watch = Stopwatch()
    bus.unbind(chip)
    node.kubelet.wait_for_device(chip, healthy=False, seconds=SECONDS)
    measured.act("driver unbound", watch.seconds, around.name)
