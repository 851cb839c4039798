"""Chips that show themselves several times over (SR-IOV)."""

from __future__ import annotations

from pathlib import Path

import pytest
from node.bus import DEVICES, Bus, Cards
from node.running import running_node


@pytest.mark.parametrize("offered", [False, True])
def test_virtual_functions_do_not_fail(bus: Bus, tmp_path: Path, offered: bool) -> None:
    """Their vendor and device registers read as all ones, as the standard says: that says
    nothing of their links. Each has a driver and a node of its own here."""
    arguments = ("--recovery-seconds", "0", "--virtual-functions", str(offered).lower())
    cards = Cards((1, 1), virtual_functions=2)
    with bus.plugged_in(cards), running_node(tmp_path, *arguments) as node:
        node.kubelet.wait_for_count(2)
        chip, other = bus.chips()
        bus.set(chip, "sriov_numvfs", "2")
        virtual = {path.resolve().name for path in (DEVICES / chip).glob("virtfn*")}
        assert len(virtual) == 2
        for function in virtual:
            assert (DEVICES / function / "config").read_bytes()[:4] == b"\xff" * 4
        if offered:
            node.kubelet.wait_for_count(4)
        # By the time that this is seen, so are the virtual functions.
        bus.unbind(other)
        node.kubelet.wait_for_device(other, healthy=False)
        assert node.kubelet.healthy() == {chip, *(virtual if offered else ())}
