"""What of a sysfs tree is an SPU, and what belongs to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus
from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.device_nodes import NodeSettings
from moffett_device_plugin.hardware.registers import Registers
from moffett_device_plugin.hardware.resolve import HostRoot
from moffett_device_plugin.hardware.sysfs import read_function
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.hardware.types import BusScan, Link, Mount, PciFunction
from tests.support.fakehost import FATAL, FakeHost


def scan(host: FakeHost, *globs: str) -> BusScan:
    return SysfsHardware(host.root, nodes=NodeSettings(control=globs)).scan(Look())


def only(host: FakeHost) -> PciFunction:
    (function,) = scan(host).functions
    return function


def paths(scanned: BusScan) -> list[str]:
    return [node.host_path for node in scanned.control_nodes]


def test_vendor_and_class_make_an_spu_whatever_the_device_id(host: FakeHost) -> None:
    host.function("0000:36:00.0", device="0x7999", pci_class="0x120200")
    host.function("0000:37:00.0", pci_class="0x060400")  # the vendor's bridge
    host.function("0000:38:00.0", vendor="0x10de")  # another vendor's accelerator
    assert [f.bus_id for f in scan(host).functions] == ["0000:36:00.0"]


def test_functions_come_in_bus_order(host: FakeHost) -> None:
    for bus_id in ("0001:01:00.0", "0000:ff:00.0", "0000:0a:00.0"):
        host.function(bus_id)
    found = [f.bus_id for f in scan(host).functions]
    assert found == ["0000:0a:00.0", "0000:ff:00.0", "0001:01:00.0"]


def test_every_character_device_under_a_function_is_its_own(host: FakeHost) -> None:
    path = host.function("0000:36:00.0", node="spu/10")
    host.node(path, "spu/9", "moffett-dma")
    host.node(path / "nested" / "deeper", "odd name")
    nodes = [node.host_path for node in only(host).nodes]
    assert nodes == ["/dev/odd name", "/dev/spu/9", "/dev/spu/10"]


def test_a_node_known_by_its_number_only_is_found(host: FakeHost) -> None:
    path = host.function("0000:36:00.0", node=None)
    hidden = host.node(path, "spu7")
    (hidden / "dev").unlink()  # walking the tree does not show that it is a device
    assert [node.host_path for node in only(host).nodes] == ["/dev/spu7"]


def test_block_devices_are_not_device_nodes(host: FakeHost) -> None:
    path = host.function("0000:36:00.0", node=None)
    host.node(path, "sda", "block", numbered=False)
    assert only(host).nodes == ()


def test_names_that_would_leave_dev_are_refused(host: FakeHost) -> None:
    path = host.function("0000:36:00.0", node=None)
    node = host.node(path, "spu0")
    (node / "uevent").write_text("DEVNAME=../etc/shadow\n")
    assert only(host).nodes == ()


def test_shared_nodes_of_the_devices_class_are_control_nodes(host: FakeHost) -> None:
    host.function("0000:36:00.0", node_class="spu-class")
    host.control_node("spu-ctl", "spu-class")
    host.control_node("kvm", "other")
    assert paths(scan(host)) == ["/dev/spu-ctl"]


def test_shared_nodes_of_a_class_named_like_the_driver_are_control_nodes(host: FakeHost) -> None:
    host.function("0000:36:00.0", driver="mxdrv", node_class="spu-class")
    host.control_node("mx-control", "mxdrv")
    assert paths(scan(host)) == ["/dev/mx-control"]


def test_a_generic_class_gives_nothing_away(host: FakeHost) -> None:
    host.function("0000:36:00.0", node_class="misc")
    host.control_node("kvm", "misc")
    assert paths(scan(host)) == []
    assert paths(scan(host, "/dev/kv*")) == ["/dev/kvm"]


def test_a_glob_never_hands_out_another_devices_node(host: FakeHost) -> None:
    host.function("0000:36:00.0", node="spu0")
    host.function("0000:37:00.0", node="spu1")
    host.control_node("spuctl", "misc")
    assert paths(scan(host, "/dev/spu*")) == ["/dev/spuctl"]


@pytest.mark.parametrize(("written", "read"), [(-1, None), (0, 0), (1, 1)])
def test_numa_node(host: FakeHost, written: int, read: int | None) -> None:
    host.function("0000:36:00.0", numa=written)
    assert only(host).numa_node == read


def test_the_chips_of_an_s30_share_its_switch(host: FakeHost) -> None:
    host.s30(0x34)
    host.s30(0x3A)
    switches = [f.switch for f in scan(host).functions]
    assert switches == ["0000:34:00.0"] * 3 + ["0000:3a:00.0"] * 3


def test_a_switch_of_the_server_makes_no_card(host: FakeHost) -> None:
    above = ("pci0000:33", "0000:33:01.0", "0000:34:00.0")
    for chip in range(2):
        port = f"0000:35:{chip:02x}.0"
        host.function(f"0000:{0x36 + chip:02x}:00.0", (*above, port), device="0x7004")
    assert [f.switch for f in scan(host).functions] == [None, None]


def test_an_on_card_switch_is_known_by_its_kind(host: FakeHost) -> None:
    above = ("pci0000:33", "0000:33:01.0")
    host.bridge("0000:34:00.0", above, ("0x11f8", "0x4068"))
    for chip in range(2):
        port = f"0000:35:{chip:02x}.0"
        host.bridge(port, (*above, "0000:34:00.0"), ("0x11f8", "0x4068"))
        full = (*above, "0000:34:00.0", port)
        host.function(f"0000:{0x36 + chip:02x}:00.0", full, device="0x7010")
    assert [f.switch for f in scan(host).functions] == ["0000:34:00.0"] * 2


def test_the_link_and_the_error_counters_are_read(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    host.set("0000:36:00.0", "current_link_speed", "2.5 GT/s PCIe")
    host.set("0000:36:00.0", "aer_dev_fatal", "DLP 1\nSDES 2\n")  # no total, on some kernels
    function = only(host)
    assert (function.link.speed, function.link.max_speed) == (2.5, 8.0)
    assert (function.link.width, function.aer.fatal) == (16, 3)


def test_a_function_that_vanishes_while_it_is_read_is_left_out(host: FakeHost) -> None:
    path = host.function("0000:36:00.0")
    os.rename(path, path.with_name("away"))  # the link on the bus dangles now
    assert scan(host).functions == ()
    assert read_function(str(host.sys), "0000:36:00.0", Registers()) is None


@pytest.mark.parametrize("name", ["vendor", "class", "numa_node", "driver", "config", "uevent"])
def test_no_missing_file_breaks_the_scan(host: FakeHost, name: str) -> None:
    path = host.function("0000:36:00.0")
    host.function("0000:37:00.0")
    for found in path.rglob(name):
        found.unlink()
    assert "0000:37:00.0" in [f.bus_id for f in scan(host).functions]


def test_a_host_without_pci_has_no_spus(host: FakeHost) -> None:
    os.rmdir(host.sys / "bus/pci/devices")
    assert scan(host) == BusScan()


def test_the_installed_sola_tells_its_version_by_its_path(host: FakeHost) -> None:
    hardware = SysfsHardware(host.root)
    assert hardware.sola_version() is None
    host.sola("3.4.1")
    assert hardware.sola_version() == "3.4.1"


# -- links, sleep, virtual functions, foreign drivers -----------------------------------------


def test_a_link_is_compared_with_what_both_its_ends_can_do(host: FakeHost) -> None:
    port = ("pci0000:33", "0000:33:01.0")
    host.function("0000:36:00.0", port)
    folder = host.sys.joinpath("devices", *port)
    (folder / "max_link_speed").write_text("8.0 GT/s PCIe\n")
    (folder / "max_link_width").write_text("4\n")
    host.set("0000:36:00.0", "max_link_speed", "16.0 GT/s PCIe")
    host.set("0000:36:00.0", "current_link_width", "4")
    assert only(host).link == Link(8.0, 8.0, 4, 4)
    assert codes(host) == set()
    host.set("0000:36:00.0", "current_link_width", "1")
    assert codes(host) == {"link-degraded"}


@pytest.mark.parametrize(
    ("name", "value"), [("power_state", "D3cold"), ("power/runtime_status", "suspended")]
)
def test_a_function_that_sleeps_is_not_read(host: FakeHost, name: str, value: str) -> None:
    path = host.function("0000:36:00.0")
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(value + "\n")
    host.set("0000:36:00.0", "config", b"\xff" * 64)  # what a read would give
    host.set("0000:36:00.0", "current_link_speed", "2.5 GT/s PCIe")
    function = only(host)
    assert (function.responding, function.link) == (None, Link())
    assert codes(host) == set()


def test_no_more_of_configuration_space_is_read_than_is_used(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    registers = scan(host).registers
    assert isinstance(registers, dict)
    assert registers["0000:36:00.0"].config == b"\x36\x1f\x30\x70"


def test_the_baseline_for_changes_comes_from_the_look_itself(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    hardware = SysfsHardware(host.root, smi="")
    seen = hardware.scan(Look())
    assert hardware.registers(Look()) == seen.registers
    host.set("0000:36:00.0", "aer_dev_fatal", FATAL.format(n=1))
    assert hardware.registers(Look()) != seen.registers


def test_virtual_functions_are_devices_only_when_it_is_configured(host: FakeHost) -> None:
    parent = host.function("0000:36:00.0")
    path = host.function("0000:36:00.1")
    (path / "physfn").symlink_to(parent)
    host.set("0000:36:00.1", "config", b"\xff" * 64)  # by specification
    seen = scan(host)
    assert [f.bus_id for f in seen.functions] == ["0000:36:00.0"]
    assert seen.virtual_functions == ("0000:36:00.1",)
    everything = SysfsHardware(host.root, smi="", virtual_functions=True).scan(Look())
    assert [f.bus_id for f in everything.functions] == ["0000:36:00.0", "0000:36:00.1"]
    snapshot = observe_bus(Snapshot(), everything)
    assert evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses["0000:36:00.1"].healthy


@pytest.mark.parametrize("driver", ["vfio-pci", "mlx5_vfio_pci", "uio_pci_generic", "pci-stub"])
def test_a_driver_for_something_else_is_a_reason_of_its_own(host: FakeHost, driver: str) -> None:
    host.function("0000:36:00.0", driver=driver, node="vfio/devices/vfio3", node_class="vfio-dev")
    assert codes(host) == {"foreign-driver"}


def codes(host: FakeHost) -> set[str]:
    snapshot = observe_bus(Snapshot(), scan(host))
    statuses = evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses
    return set(statuses["0000:36:00.0"].codes)


# -- links inside the host's root ----------------------------------------------------------------


def test_absolute_links_of_the_host_are_followed_inside_its_root(host: FakeHost) -> None:
    tool = host.root / "usr/local/sola-3.5.3/bin/mx-smi"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    (host.root / "usr/local/sola").symlink_to("/usr/local/sola-3.5.3")
    (host.root / "usr/bin/mx-smi").symlink_to("/usr/local/sola/bin/mx-smi")
    hardware = SysfsHardware(host.root)
    assert hardware.has_smi
    assert hardware.sola_version() == "3.5.3"
    assert hardware.sola_mounts() == (
        Mount("/usr/local/sola-3.5.3", "/usr/local/sola"),
        Mount("/usr/local/sola-3.5.3", "/usr/local/sola-3.5.3"),
        Mount("/usr/local/sola-3.5.3/bin/mx-smi", "/usr/bin/mx-smi"),
    )


@pytest.mark.parametrize(
    ("target", "resolved"),
    [("/a", "/a/x"), ("../b", "/b/x"), ("../../../../etc", "/etc/x"), ("loop", None)],
)
def test_no_link_leads_out_of_the_hosts_root(
    tmp_path: Path, target: str, resolved: str | None
) -> None:
    (tmp_path / "l").mkdir()
    (tmp_path / "l/link").symlink_to(target)
    (tmp_path / "l/loop").symlink_to("loop")
    seen = HostRoot(tmp_path).see("/l/link/x")
    assert seen.is_relative_to(tmp_path)
    if resolved is not None:
        assert HostRoot(tmp_path).resolve("/l/link/x") == resolved
