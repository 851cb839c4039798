"""Whose a device node is, above all where the driver does not say."""

from __future__ import annotations

import os
import shutil

import pytest

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy, parse_rules
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus
from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.device_nodes import NodeSettings
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.hardware.types import BusScan
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.settings.types import DEVICE_GLOBS, DEVICE_NODES, OptionType
from tests.support.fakehost import FakeHost

CHIPS = ("0000:36:00.0", "0000:37:00.0", "0000:38:00.0")


def bare(host: FakeHost, *chips: str, driver: str | None = "moffett") -> None:
    """Functions whose driver makes no node below them."""
    for chip in chips:
        host.function(chip, node=None, driver=driver)


def virtual(host: FakeHost, *names: str, node_class: str = "moffett") -> None:
    for name in names:
        host.node(host.sys / "devices/virtual", name, node_class)


def hardware(host: FakeHost, **settings: tuple[str, ...]) -> SysfsHardware:
    return SysfsHardware(host.root, smi="", nodes=NodeSettings(**settings))


def nodes(scan: BusScan) -> dict[str, list[str]]:
    """By the bus of each function."""
    return {f.bus_id[5:7]: [node.host_path for node in f.nodes] for f in scan.functions}


def scan(host: FakeHost, **settings: tuple[str, ...]) -> BusScan:
    return hardware(host, **settings).scan(Look())


def messages(scanned: BusScan, rules: str = "") -> dict[str, str]:
    snapshot = observe_bus(Snapshot(), scanned)
    statuses = evaluate(snapshot, {}, parse_rules(rules), 0.0).health_statuses
    return {device_id: "; ".join(r.message for r in s.reasons) for device_id, s in statuses.items()}


# -- nodes without a parent device ------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["moffett2", "moffett0", "moffett1"], ["moffett0", "moffett1", "moffett2"]),
        (["moffett8", "moffett9", "moffett10"], ["moffett8", "moffett9", "moffett10"]),
        (["moffett/card0-chip0", "moffett/card0-chip1", "moffett/card1-chip0"],) * 2,
    ],
)
def test_one_numbered_node_for_each_device_is_its_own(
    host: FakeHost, names: list[str], found: list[str]
) -> None:
    bare(host, *CHIPS)
    virtual(host, *names)
    scanned = scan(host)
    assert nodes(scanned) == {
        bus: [f"/dev/{n}"] for bus, n in zip(("36", "37", "38"), found, strict=True)
    }
    assert scanned.control_nodes == ()


def test_the_major_numbers_name_counts_where_the_class_has_another(host: FakeHost) -> None:
    bare(host, *CHIPS)
    virtual(host, "spu0", "spu1", "spu2", node_class="not-moffett-at-all")
    assert nodes(scan(host)) == {"36": ["/dev/spu0"], "37": ["/dev/spu1"], "38": ["/dev/spu2"]}


def test_as_many_nodes_of_a_stranger_are_nobodys(host: FakeHost) -> None:
    """/dev/cpu/N/msr on a machine with as many CPUs as SPUs."""
    bare(host, *CHIPS)
    virtual(host, "cpu0", "cpu1", "cpu2", node_class="msr")
    scanned = scan(host)
    assert nodes(scanned) == {"36": [], "37": [], "38": []}
    assert scanned.control_nodes == ()


def test_a_shared_node_beside_them_is_a_control_node(host: FakeHost) -> None:
    bare(host, *CHIPS)
    virtual(host, "moffett0", "moffett1", "moffett2", "moffett-ctl")
    scanned = scan(host)
    assert nodes(scanned)["36"] == ["/dev/moffett0"]
    assert [node.host_path for node in scanned.control_nodes] == ["/dev/moffett-ctl"]


@pytest.mark.parametrize("count", [2, 4])
def test_where_numbers_differ_the_reason_says_so_and_nobody_gets_them(
    host: FakeHost, count: int
) -> None:
    bare(host, *CHIPS)
    virtual(host, *(f"moffett{n}" for n in range(count)))
    scanned = scan(host)
    assert nodes(scanned) == {"36": [], "37": [], "38": []}
    assert scanned.control_nodes == ()
    assert scan(host, control=("/dev/moffett-*",)).control_nodes == ()
    for message in messages(scanned).values():
        assert f"{count} (/dev/moffett0 to /dev/moffett{count - 1})" in message
        assert "3 devices have no node" in message
        assert "--device-node" in message


def test_a_glob_for_control_nodes_gives_out_no_node_of_a_device(host: FakeHost) -> None:
    bare(host, *CHIPS)
    virtual(host, "moffett0", "moffett1", "moffett2")
    assert scan(host, control=("/dev/moffett*",)).control_nodes == ()


def test_a_device_keeps_its_node_while_another_card_reboots(host: FakeHost) -> None:
    """Its driver gives out the lowest free number: after the reboot the numbers are not in
    bus order any more, and a restarted count would be wrong."""
    bare(host, *CHIPS)
    virtual(host, "moffett0", "moffett1", "moffett2")
    machine = hardware(host)
    machine.scan(Look())
    for name in ("moffett0", "moffett1"):
        drop(host, name)
    host.remove("0000:36:00.0")
    host.remove("0000:37:00.0")
    assert nodes(machine.scan(Look())) == {"38": ["/dev/moffett2"]}
    host.function("0000:37:00.0", node=None)
    virtual(host, "moffett0")
    assert nodes(machine.scan(Look())) == {"37": ["/dev/moffett0"], "38": ["/dev/moffett2"]}
    host.function("0000:36:00.0", node=None)
    assert nodes(machine.scan(Look()))["36"] == [], "its node is not there yet"
    virtual(host, "moffett1")
    assert nodes(machine.scan(Look())) == {
        "36": ["/dev/moffett1"], "37": ["/dev/moffett0"], "38": ["/dev/moffett2"]
    }  # fmt: skip


def test_a_device_without_a_driver_has_no_part_in_the_count(host: FakeHost) -> None:
    bare(host, CHIPS[0], driver=None)
    bare(host, CHIPS[1], driver="vfio-pci")
    bare(host, CHIPS[2])
    virtual(host, "moffett0")
    assert nodes(scan(host)) == {"36": [], "37": [], "38": ["/dev/moffett0"]}


# -- what is configured -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("templates", "first"),
    [
        (("/dev/x{index}",), ["/dev/x0"]),
        (("/dev/x*",), ["/dev/x2"]),  # the lowest minor
        (("/dev/x{index}", "/dev/mon{index}"), ["/dev/mon7", "/dev/x0"]),
    ],
)
def test_a_template_says_which_node_is_a_devices(
    host: FakeHost, templates: tuple[str, ...], first: list[str]
) -> None:
    bare(host, *CHIPS)
    virtual(host, "x2", "x0", "x1", node_class="strange")
    virtual(host, "mon7", "mon8", "mon9", node_class="stranger")
    assert nodes(scan(host, templates=templates))["36"] == first


def test_what_is_ignored_is_given_to_nobody(host: FakeHost) -> None:
    path = host.function(CHIPS[0], node="spu0")
    host.node(path, "spu0-debug")
    host.control_node("moffett-trace")
    scanned = scan(host, ignored=("/dev/*debug", "/dev/*trace"))
    assert nodes(scanned) == {"36": ["/dev/spu0"]}
    assert scanned.control_nodes == ()


@pytest.mark.parametrize("text", ["spu0", "/dev/spu{minor}", "/dev/spu{", "!spu"])
def test_a_template_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="index"):
        DEVICE_NODES.parse("--device-node", text)


def test_a_node_that_is_missing_can_be_a_warning_for_privileged_pods(host: FakeHost) -> None:
    bare(host, CHIPS[0])
    snapshot = observe_bus(Snapshot(), scan(host))
    strict = evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses[CHIPS[0]]
    policy = parse_rules("no-device-node=warning")
    lenient = evaluate(snapshot, {}, policy, 0.0).health_statuses[CHIPS[0]]
    assert (strict.healthy, lenient.healthy) == (False, True)
    assert strict.codes == lenient.codes == {"no-device-node"}


# -- nodes of other subsystems ----------------------------------------------------------


@pytest.mark.parametrize("node_class", ["ptp", "video4linux", "watchdog", "i2c-dev", "mtd", "tty"])
def test_a_node_of_another_subsystem_is_no_device_node(host: FakeHost, node_class: str) -> None:
    path = host.function(CHIPS[0], node=None)
    host.node(path, f"{node_class}0", node_class)
    virtual(host, f"{node_class}9", node_class=node_class)
    scanned = scan(host)
    assert nodes(scanned) == {"36": []}
    assert scanned.control_nodes == ()
    assert "no device node" in messages(scanned)[CHIPS[0]]


# -- what has gone ------------------------------------------------------------------------


def test_a_control_node_that_has_gone_is_forgotten(host: FakeHost) -> None:
    host.function(CHIPS[0], node="spu0")
    host.control_node("moffett-ctl")
    machine = hardware(host)
    first = observe_bus(Snapshot(), machine.scan(Look()))
    assert first.control_nodes
    drop(host, "moffett-ctl")
    assert observe_bus(first, machine.scan(Look())).control_nodes == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="mknod needs root")
def test_a_control_node_that_is_a_link_is_the_node_under_the_name_that_was_asked(
    host: FakeHost,
) -> None:
    host.function(CHIPS[0], node="spu0")
    host.control_node("mxctl0", "strange")
    folder = host.root / "dev"
    folder.mkdir()
    make_node(host, "mxctl0")
    (folder / "mx-control").symlink_to("/dev/mxctl0")
    (node,) = scan(host, control=("/dev/mx-*",)).control_nodes
    assert (node.host_path, node.container_path) == ("/dev/mxctl0", "/dev/mx-control")


@pytest.mark.skipif(os.geteuid() != 0, reason="mknod needs root")
def test_a_node_that_only_a_containers_copy_of_dev_still_has_is_given_to_nobody(
    host: FakeHost,
) -> None:
    host.function(CHIPS[0], node="spu0")
    host.control_node("mxctl0", "strange")
    (host.root / "dev").mkdir()
    make_node(host, "mxctl0")
    drop(host, "mxctl0")
    host.control_node("mxctl1", "strange")  # the driver is there, with another node
    assert paths(scan(host, control=("/dev/mxctl*",))) == ["/dev/mxctl1"]


def paths(scanned: BusScan) -> list[str]:
    return [node.host_path for node in scanned.control_nodes]


def drop(host: FakeHost, name: str) -> None:
    """A node goes away, as sysfs shows it."""
    for link in (host.sys / "dev/char").iterdir():
        if link.readlink().name == name:
            shutil.rmtree(link.resolve())
            link.unlink()


def make_node(host: FakeHost, name: str) -> None:
    """The file for a node that sysfs shows; its numbers are those of nothing real."""
    (link,) = [n for n in (host.sys / "dev/char").iterdir() if n.readlink().name == name]
    major, minor = map(int, link.name.split(":"))
    try:
        os.mknod(host.root / "dev" / name, 0o20600, os.makedev(major, minor))
    except PermissionError as error:
        pytest.skip(f"no mknod here: {error}")


# -- patterns ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("/dev/spu?", ["/dev/spu0", "/dev/spu1", "/dev/spu2"]),
        ("/dev/spu[0-1]", ["/dev/spu0", "/dev/spu1"]),
        ("/dev/spu[!0]", ["/dev/spu1", "/dev/spu2"]),
        ("/dev/spu*", ["/dev/spu0", "/dev/spu1", "/dev/spu2"]),
        ("/dev/*/ctl", ["/dev/spu/ctl"]),
        ("/dev/s[p]u/c??", ["/dev/spu/ctl"]),
    ],
)
def test_a_pattern_is_one_for_every_setting(
    host: FakeHost, pattern: str, matched: list[str]
) -> None:
    bare(host, *CHIPS)
    names = ("spu0", "spu1", "spu2", "spu/ctl")
    virtual(host, *names, node_class="other")
    as_control = scan(host, control=(pattern,))
    assert [node.host_path for node in as_control.control_nodes] == matched
    left = scan(host, control=("/dev/spu*", "/dev/*/*"), ignored=(pattern,)).control_nodes
    given = scan(host, templates=(pattern,))
    if len(matched) == len(CHIPS):
        assert [node for _, (node,) in sorted(nodes(given).items())] == matched
    assert [n.host_path for n in left] == sorted({f"/dev/{n}" for n in names} - set(matched))


@pytest.mark.parametrize("option", [DEVICE_GLOBS, DEVICE_NODES])
@pytest.mark.parametrize("pattern", ["/dev/spu[0-3", "/dev/../mem", "/dev//spu0", "/dev/."])
def test_a_pattern_that_can_match_nothing_stops_the_start(option: OptionType, pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="correct it"):
        option.parse("deviceNodes", pattern)


def test_where_no_node_is_below_the_device_the_setting_is_named(host: FakeHost) -> None:
    bare(host, *CHIPS)
    virtual(host, "spu0", "spu1", "spu2", node_class="other")
    assert all("deviceNodes" in message for message in messages(scan(host)).values())
