"""What stays true of a device while the bus and mx-smi come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moffett_device_plugin.devices.cards import cards_of
from moffett_device_plugin.devices.inventory import (
    Snapshot,
    expire,
    freeze_cards,
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
from moffett_device_plugin.hardware.types import BusScan, Link, SmiDevice, SmiReport, Telemetry
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


# -- identity comes from the bus ----------------------------------------------------------


def without_switch(*bus_ids: str) -> BusScan:
    """Chips whose card shows itself by the serial number alone."""
    (function, *_) = bus_scan(LAYOUT, Faults()).functions
    return BusScan(tuple(replace(function, bus_id=b, switch=None, device_id=1) for b in bus_ids))


PAIR = ("0000:36:00.0", "0000:37:00.0")


def rows(serial: str | None, *bus_ids: str, **more: str) -> SmiReport:
    return SmiReport(tuple(SmiDevice(b, serial=serial, **more) for b in bus_ids))  # type: ignore[arg-type]


def cards(snapshot: Snapshot) -> list[tuple[str, ...]]:
    return [tuple(device.id for device in card.devices) for card in cards_of(snapshot.devices)]


def test_a_serial_number_that_arrives_after_the_first_list_moves_no_device() -> None:
    listed = freeze_cards(observe_bus(Snapshot(), without_switch(*PAIR)))
    assert cards(listed) == [(PAIR[0],), (PAIR[1],)]
    late = observe_smi(listed, rows("2023", *PAIR), listed.scan)
    assert cards(late) == [(PAIR[0],), (PAIR[1],)]
    assert [device.serial for device in late.devices] == ["2023", "2023"]


def test_a_card_that_is_known_by_its_serial_number_stays_one_when_it_reboots() -> None:
    scanned = observe_bus(Snapshot(), without_switch(*PAIR))
    listed = freeze_cards(observe_smi(scanned, rows("2023", *PAIR), scanned.scan))
    assert cards(listed) == [PAIR]
    gone = observe_bus(listed, BusScan())
    back = observe_bus(gone, without_switch(*PAIR))
    assert back.devices[0].serial is None, "it could be another card by now"
    assert cards(back) == [PAIR]


def test_the_switch_says_what_a_card_is_whatever_the_serial_numbers_are() -> None:
    scanned = bus(Snapshot(), Faults())
    odd = tuple(SmiDevice(b, serial=serial) for b, serial in zip(IDS, "aabcde", strict=True))
    same = tuple(SmiDevice(b, serial="2023") for b in IDS)
    for report in (odd, same):
        seen = observe_smi(scanned, SmiReport(report), scanned.scan)
        assert cards(seen) == [tuple(IDS[:3]), tuple(IDS[3:])]


def test_a_new_card_in_an_old_cards_slot_inherits_nothing() -> None:
    before = snapshot_of("1xS4")
    function = replace(before.devices[0].function, device_id=0x7031, incarnation=7)
    (device,) = observe_bus(before, BusScan((function,))).devices
    assert (device.serial, device.uuid, device.product, device.cores) == (None,) * 4
    assert device.telemetry is None


def test_a_card_that_reboots_keeps_its_product_and_nothing_that_could_be_anothers() -> None:
    before = snapshot_of("1xS4")
    function = replace(before.devices[0].function, incarnation=7)
    (device,) = observe_bus(before, BusScan((function,))).devices
    assert (device.product, device.serial, device.uuid) == ("S4", None, None)


def test_who_a_device_is_does_not_change_while_it_stays_on_the_bus() -> None:
    before = snapshot_of("1xS4")
    device_id = before.devices[0].id
    after = observe_smi(before, rows("other", device_id, product="S9", uuid="x"), before.scan)
    first, second = before.devices[0], after.devices[0]
    assert (first.serial, first.product, first.uuid) == (
        second.serial, second.product, second.uuid
    )  # fmt: skip


# -- every reading has an age --------------------------------------------------------------


def test_a_reading_stands_while_mx_smi_is_silent_and_is_unknown_when_it_is_too_old() -> None:
    scanned = bus(Snapshot(), Faults())
    seen = observe_smi(scanned, smi_report(LAYOUT, Faults()), scanned.scan, now=100.0)
    silent = observe_silence(seen, "it hangs")
    young, due = expire(silent, 699.0, smi_interval=5.0)
    assert (young, due) == (silent, 700.0)
    old, due = expire(silent, 700.0, smi_interval=5.0)
    assert all(device.telemetry is None and device.listed is None for device in old.devices)
    assert old.devices[0].serial is not None, "who it is has not changed"
    assert due is None


def test_the_age_follows_the_interval_of_mx_smi() -> None:
    scanned = bus(Snapshot(), Faults())
    seen = observe_smi(scanned, smi_report(LAYOUT, Faults()), scanned.scan, now=0.0)
    assert expire(seen, 1199.0, smi_interval=120.0)[0] == seen
    assert expire(seen, 1200.0, smi_interval=120.0)[0] != seen


@pytest.mark.parametrize("name", ["ecc_uncorrected_volatile", "temperature_celsius"])
def test_a_reading_that_one_answer_leaves_out_stands_for_as_long(name: str) -> None:
    scanned = snapshot_of("1xS4")
    device_id = scanned.devices[0].id
    said = SmiReport((SmiDevice(device_id, telemetry=Telemetry(**{name: 97})),))  # type: ignore[arg-type]
    nothing = SmiReport((SmiDevice(device_id, telemetry=Telemetry(memory_used_mib=1)),))
    seen = observe_smi(scanned, said, scanned.scan, now=0.0)
    later = observe_smi(seen, nothing, scanned.scan, now=599.0)
    assert getattr(expire(later, 599.0, 5.0)[0].devices[0].telemetry, name) == 97
    (device,) = expire(later, 600.0, 5.0)[0].devices
    assert device.telemetry == Telemetry(memory_used_mib=1)
    assert device.listed


# -- registers that are not read ------------------------------------------------------------


def test_registers_that_are_not_read_say_what_they_said_last() -> None:
    before = bus(Snapshot(), Faults().with_fault(IDS[0], "config"))
    scan = bus_scan(LAYOUT, Faults())
    asleep = replace(scan.functions[0], responding=None, link=Link())
    after = observe_bus(before, BusScan((asleep, *scan.functions[1:])))
    assert after.devices[0].function.responding is False
    assert after.devices[0].function.link == before.devices[0].function.link
