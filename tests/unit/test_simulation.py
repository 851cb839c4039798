"""The simulated node has to look like a real one, at every size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moffett_device_plugin.hardware.pci import bus_order, sysfs_bus_id
from moffett_device_plugin.hardware.simulation import (
    CHIP_FAULTS,
    CHIPS,
    Faults,
    build,
    bus_scan,
    parse_spec,
    smi_report,
)


@pytest.mark.parametrize(
    ("spec", "chips"),
    [("8xS30", 24), ("2xS4,1xS30", 5), ("1xs10", 2), ("1000xS4", 1000), ("300xS30", 900)],
)
def test_every_chip_has_a_bus_id_of_its_own(spec: str, chips: int) -> None:
    layout = build(parse_spec(spec))
    ids = [chip.bus_id for chip in layout.chips]
    assert len(set(ids)) == len(ids) == chips
    assert all(sysfs_bus_id(bus_id) == bus_id for bus_id in ids)
    assert ids == sorted(ids, key=bus_order)
    assert [chip.index for chip in layout.chips] == list(range(chips))


@given(st.lists(st.sampled_from(sorted(CHIPS)), min_size=1, max_size=40))
def test_no_two_functions_of_the_bus_share_an_address(cards: list[str]) -> None:
    layout = build(tuple(cards))
    ports = {port for chip in layout.chips for port in chip.ancestors}
    assert not ports & {chip.bus_id for chip in layout.chips}
    assert len({chip.serial for chip in layout.chips}) == len(cards)


def test_two_cards_are_on_two_sockets() -> None:
    layout = build(parse_spec("2xS30"))
    assert [chip.numa_node for chip in layout.chips] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("fault", CHIP_FAULTS)
def test_every_fault_shows_somewhere(fault: str) -> None:
    layout = build(parse_spec("1xS4"))
    wrong = Faults().with_fault(layout.chips[0].bus_id, fault)
    sound = (bus_scan(layout, Faults()), smi_report(layout, Faults()))
    assert (bus_scan(layout, wrong), smi_report(layout, wrong)) != sound


def test_faults_survive_their_file_form() -> None:
    faults = Faults().with_fault("0000:36:00.0", "ecc").rebooted("0000:37:00.0")
    assert Faults.from_json(faults.to_json()) == faults


@pytest.mark.parametrize("text", ["", "[]", "{", '{"faults": 3}', '{"reboots": {"a": "b"}}'])
def test_a_file_that_is_not_faults_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Faults.from_json(text)
