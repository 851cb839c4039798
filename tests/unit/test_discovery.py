"""What of a sysfs tree is an SPU, and what belongs to it."""

from __future__ import annotations

import os

import pytest

from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.device_nodes import NodeSettings
from moffett_device_plugin.hardware.registers import Registers
from moffett_device_plugin.hardware.sysfs import read_function
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.hardware.types import BusScan, PciFunction
from tests.support.fakehost import FakeHost


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
