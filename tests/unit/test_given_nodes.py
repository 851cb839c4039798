"""Whether a container's device nodes still lead to the devices."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.hardware.telemetry.given_nodes import (
    NEW_POD,
    RESTART,
    GivenNodes,
    Problem,
    judge,
    remedy_of,
)
from moffett_device_plugin.hardware.types import DeviceNode, PciFunction
from tests.support.fakehost import FakeHost


def function(path: str = "/dev/spu0") -> PciFunction:
    return PciFunction("0000:36:00.0", (), 0x7030, None, "moffett", None, (DeviceNode(path, path),))


def test_nodes_with_the_hosts_numbers_have_no_problem() -> None:
    assert judge([function()], {"/dev/spu0": (240, 0)}, {"/dev/spu0": (240, 0)}) == ()


def test_after_a_reboot_of_the_card_a_node_has_another_number() -> None:
    (problem,) = judge([function()], {"/dev/spu0": (240, 7)}, {"/dev/spu0": (240, 0)})
    assert problem == Problem("/dev/spu0", "other-number")
    assert remedy_of(str(problem)) == RESTART


def test_a_node_of_another_name_was_not_given() -> None:
    (problem,) = judge([function("/dev/spu9")], {"/dev/spu9": (240, 9)}, {"/dev/spu0": (240, 0)})
    assert problem == Problem("/dev/spu9", "missing")
    assert remedy_of(str(problem)) == NEW_POD


def test_what_mx_smi_lists_is_not_looked_at(host: FakeHost, tmp_path: Path) -> None:
    chips = host.s30(0x36)
    given = GivenNodes(SysfsHardware(host.root, smi=""), tmp_path / "container")

    async def play() -> None:
        assert not await given.check(chips)
        assert given.certain
        problems = await given.check(chips[1:])
        assert [problem.kind for problem in problems] == ["missing"]
        assert not given.restart_helps, "a start of the container would not add the node"

    asyncio.run(play())
    given.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
def test_the_containers_own_node_is_compared_with_the_hosts(host: FakeHost, tmp_path: Path) -> None:
    chip = host.s30(0x36)[0]
    hardware = SysfsHardware(host.root, smi="")
    given = GivenNodes(hardware, tmp_path)

    async def play() -> None:
        await given.check(everything=True)
        (tmp_path / "dev").mkdir()
        for path in hardware.node_numbers:
            os.mknod(tmp_path / path.lstrip("/"), 0o020600, os.makedev(240, 99))
        problems = await given.check(everything=True)
        assert {problem.kind for problem in problems} == {"other-number"}
        assert given.restart_helps
        host.remove(chip)
        assert await given.check(everything=True)
        assert not given.restart_helps, "the container could not be started without the node"

    asyncio.run(play())
    given.close()
