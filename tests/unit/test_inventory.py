"""What stays true of a device while the bus and mx-smi come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moffett_device_plugin.devices.inventory import (
    Snapshot,
    observe_bus,
    observe_silence,
    observe_smi,
)
from moffett_device_plugin.hardware.simulation import (
    Faults,
    build,
    bus_scan,
    parse_spec,
    smi_report,
)
from moffett_device_plugin.hardware.types import BusScan, SmiDevice, SmiReport, Telemetry
from tests.support.values import ids_of, snapshot_of

LAYOUT = build(parse_spec("2xS30"))
IDS = ids_of("2xS30")


def gone(*ids: str) -> Faults:
    faults = Faults()
    for device_id in ids:
        faults = faults.with_fault(device_id, "gone")
    return faults


def bus(before: Snapshot, faults: Faults) -> Snapshot:
    return observe_bus(before, bus_scan(LAYOUT, faults))


def test_ids_are_the_same_with_and_without_mx_smi() -> None:
    alone = bus(Snapshot(), Faults())
    joined = snapshot_of("2xS30")
    assert [d.id for d in alone.devices] == [d.id for d in joined.devices] == IDS


def test_ids_survive_a_new_numbering() -> None:
    """A card is added in front: every index moves, no id does."""
    before = snapshot_of("2xS30")
    extra = replace(before.devices[0].function, bus_id="0000:01:00.0", switch=None)
    scan = BusScan((extra, *bus_scan(LAYOUT, Faults()).functions))
    scanned = observe_bus(before, scan)
    rows = [replace(r, index=(r.index or 0) + 1) for r in smi_report(LAYOUT, Faults()).devices]
    after = observe_smi(
        scanned, SmiReport((SmiDevice("0000:01:00.0", index=0), *rows)), scanned.scan
    )
    assert [d.id for d in after.devices] == ["0000:01:00.0", *IDS]
    assert [d.index for d in after.devices] == list(range(7))


def test_a_device_that_left_stays_listed_until_it_is_back() -> None:
    after = bus(snapshot_of("2xS30"), gone(IDS[0]))
    assert [d.id for d in after.devices] == IDS
    assert [d.present for d in after.devices] == [False] + [True] * 5
    assert after.devices[0].serial == LAYOUT.chips[0].serial
    assert all(d.present for d in bus(after, Faults()).devices)


@pytest.mark.parametrize("seen_leaving", [True, False])
def test_a_reboot_forgets_what_was_counted_before_it(seen_leaving: bool) -> None:
    before = snapshot_of("2xS30", Faults().with_fault(IDS[0], "ecc"))
    if seen_leaving:
        before = bus(before, gone(IDS[0]))
    after = bus(before, Faults().rebooted(IDS[0]))
    assert after.devices[0].telemetry is None
    assert after.devices[0].listed is None
    assert after.devices[1].telemetry is not None


def test_a_run_of_mx_smi_says_nothing_of_a_device_that_came_up_after_it_began() -> None:
    began = bus(Snapshot(), gone(IDS[0]))
    report = smi_report(LAYOUT, gone(IDS[0]))
    during = bus(began, Faults())
    assert observe_smi(during, report, began.scan).devices[0].listed is None
    assert observe_smi(during, report, during.scan).devices[0].listed is False


def test_a_silent_mx_smi_takes_nothing_away() -> None:
    before = snapshot_of("2xS30")
    after = observe_silence(observe_silence(before, "it hangs"), "it hangs")
    assert after.devices == before.devices
    assert (after.smi.error, after.smi.runs_failed) == ("it hangs", 2)
    assert after.sola_version == before.sola_version


@pytest.mark.parametrize("reading", [0.0, None])
def test_a_temperature_of_zero_or_none_keeps_the_last_real_one(reading: float | None) -> None:
    before = snapshot_of("1xS4")
    row = SmiDevice(before.devices[0].id, telemetry=Telemetry(temperature_celsius=reading))
    after = observe_smi(before, SmiReport((row,)), before.scan)
    assert after.devices[0].telemetry is not None
    assert after.devices[0].telemetry.temperature_celsius == 43.0


def test_without_mx_smi_the_switch_makes_the_card() -> None:
    cards = [d.card_id for d in bus(Snapshot(), Faults()).devices]
    assert len(set(cards)) == 2
    assert cards[:3] == cards[:1] * 3


def test_a_chip_that_mx_smi_does_not_list_is_on_its_siblings_card() -> None:
    after = snapshot_of("2xS30", Faults().with_fault(IDS[1], "firmware"))
    assert after.devices[1].serial == LAYOUT.chips[0].serial
    assert after.devices[1].index == 1


def test_indexes_are_mx_smis_own_and_never_twice() -> None:
    """mx-smi numbers only what it lists: the third chip is its number 1."""
    scanned = bus(Snapshot(), Faults())
    listed = [IDS[0], *IDS[2:]]
    rows = tuple(SmiDevice(bus_id, index=n) for n, bus_id in enumerate(listed))
    after = observe_smi(scanned, SmiReport(rows), scanned.scan)
    by_id = {d.id: d.index for d in after.devices}
    assert [by_id[i] for i in listed] == [0, 1, 2, 3, 4]
    assert sorted(by_id.values()) == [0, 1, 2, 3, 4, 5]


def test_what_mx_smi_says_of_sola_goes_before_the_path() -> None:
    scanned = observe_bus(Snapshot(), bus_scan(LAYOUT, Faults()), "3.4.0")
    assert scanned.sola_version == "3.4.0"
    asked = observe_smi(scanned, smi_report(LAYOUT, Faults()), scanned.scan)
    assert asked.sola_version == "3.5.3"
    assert observe_silence(asked, None).sola_version == "3.4.0"
