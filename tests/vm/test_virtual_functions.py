"""Chips that show themselves several times over (SR-IOV)."""

from __future__ import annotations

from pathlib import Path

import pytest
from node.bus import DEVICES, Bus, Cards
from node.plugin import reasons
from node.running import running_node


@pytest.mark.xfail(
    reason="a virtual function's vendor register is taken for a dead link", raises=AssertionError
)
def test_virtual_functions_answer(bus: Bus, tmp_path: Path) -> None:
    """Their vendor and device registers read as all ones, as the standard says."""
    with bus.plugged_in(Cards((1, 1), virtual_functions=2)), running_node(tmp_path) as node:
        node.kubelet.wait_for_count(2)
        chip, _ = bus.chips()
        bus.set(chip, "sriov_numvfs", "2")
        virtual = {path.resolve().name for path in (DEVICES / chip).glob("virtfn*")}
        assert len(virtual) == 2
        node.kubelet.wait_for("the virtual functions", lambda health: virtual <= set(health))
        assert node.kubelet.healthy() >= set(bus.chips())
        assert "config-unreadable" not in set.union(*map(reasons, virtual))
