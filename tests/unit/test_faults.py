"""The fault campaign's own judgement: it must be able to fail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.faults import invariants
from tests.faults.actions import ACTIONS
from tests.faults.campaign import Record, plan
from tests.faults.invariants import Agreement, Growth, InvariantError
from tests.faults.machine import Device
from tests.faults.plugin import ROOT
from tests.faults.truth import Expect, Shape, card_id, differences, expected, of_device

DEVICES = Shape("spu")
CARDS = Shape("spu-card", cards=True)
SHARED = Shape("spu.shared", shared=True)


def device(number: int = 0, **changes: object) -> Device:
    above = ("pci0000:33", "0000:33:01.0", "0000:34:00.0", f"0000:35:{number:02x}.0")
    well = Device(
        number, f"0000:{0x36 + number:02x}:00.0", 0, above, "spu0", present=True, seen=True
    )
    return replace(well, **changes)  # type: ignore[arg-type]


# -- what is true ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "smi_ok", "what"),
    [
        ({}, True, Expect.HEALTHY),
        ({"present": False}, True, Expect.GONE),
        ({"driver": False}, True, Expect.UNHEALTHY),
        ({"node": None}, True, Expect.UNHEALTHY),
        ({"responding": False}, False, Expect.UNHEALTHY),
        ({"aer_fatal": 1}, False, Expect.UNHEALTHY),
        ({"ecc": 1}, True, Expect.UNHEALTHY),
        ({"celsius": 97}, True, Expect.UNHEALTHY),
        ({"listed": False}, True, Expect.UNHEALTHY),
        ({}, False, Expect.HEALTHY),
        ({"reported_failed": True}, False, Expect.ANY),
        ({"reported_failed": True}, True, Expect.HEALTHY),
    ],
)
def test_what_a_chip_has_to_be(changes: dict[str, object], smi_ok: bool, what: Expect) -> None:
    assert of_device(device(**changes), DEVICES, smi_ok=smi_ok) is what


def test_a_rule_that_is_off_makes_no_chip_sick() -> None:
    shape = replace(DEVICES, ecc_counts=False)
    assert of_device(device(ecc=3), shape, smi_ok=True) is Expect.HEALTHY


def test_a_card_is_as_well_as_its_chips() -> None:
    devices = [device(0), device(1), device(2, aer_fatal=1)]
    assert list(expected(devices, CARDS, smi_ok=True)["spu-card"].values()) == [Expect.UNHEALTHY]
    assert expected(devices[:2], CARDS, smi_ok=True)["spu-card"] == {
        card_id(devices[0]): Expect.HEALTHY
    }


def test_a_chip_that_the_daemon_never_saw_is_not_missed_on_its_card() -> None:
    never_seen = [device(0), device(1, present=False, seen=False)]
    gone_since = [device(0), device(1, present=False)]
    assert set(expected(never_seen, CARDS, smi_ok=True)["spu-card"].values()) == {Expect.ANY}
    assert set(expected(gone_since, CARDS, smi_ok=True)["spu-card"].values()) == {Expect.UNHEALTHY}


def test_a_healthy_chip_that_is_lost_is_a_difference() -> None:
    devices = [device(0), device(1)]
    want = expected(devices, DEVICES, smi_ok=True)
    well = {c.bus_id: "Healthy" for c in devices}
    assert differences(want, {"spu": well}) == []
    assert len(differences(want, {"spu": well | {devices[0].bus_id: "Unhealthy"}})) == 1
    assert len(differences(want, {"spu": {devices[0].bus_id: "Healthy"}})) == 1
    assert len(differences(want, {})) == 2


def test_a_sick_chip_that_is_offered_is_a_difference() -> None:
    unhealthy, gone = device(0, ecc=1), device(1, present=False)
    want = expected([unhealthy, gone], DEVICES, smi_ok=True)
    assert differences(want, {"spu": {unhealthy.bus_id: "Unhealthy"}}) == []
    told = {unhealthy.bus_id: "Healthy", gone.bus_id: "Healthy"}
    assert len(differences(want, {"spu": told})) == 2


def test_what_nobody_knows_and_names_that_were_withdrawn_are_differences() -> None:
    want = expected([device()], DEVICES, smi_ok=True)
    well = {device().bus_id: "Healthy"}
    assert differences(want, {"spu": well, "old": {"x": "Unhealthy"}}) == []
    assert len(differences(want, {"spu": well, "old": {"x": "Healthy"}})) == 1
    assert len(differences(want, {"spu": well | {"0000:ff:00.0": "Unhealthy"}})) == 1


def test_a_chip_that_another_name_holds_may_be_held_back_and_a_sick_one_must_be() -> None:
    held, unhealthy = device(0), device(1, aer_fatal=1)
    want = expected([held, unhealthy], SHARED, smi_ok=True, held=[held.bus_id, unhealthy.bus_id])
    expectations = want["spu.shared"]
    assert expectations[f"{held.bus_id}::1"] is Expect.ANY
    assert expectations[f"{unhealthy.bus_id}::0"] is Expect.UNHEALTHY


# -- invariants -----------------------------------------------------------------------


def test_the_list_may_be_wrong_for_the_stated_time_and_no_longer() -> None:
    agreement = Agreement(seconds=5)
    agreement.changed(now=100)
    agreement.see(["wrong"], now=105)
    with pytest.raises(InvariantError, match="truth: wrong"):
        agreement.see(["wrong"], now=105.1)


def test_a_change_that_takes_longer_is_given_longer() -> None:
    agreement = Agreement(seconds=5)
    agreement.changed(now=100, seconds=20)
    agreement.changed(now=101)  # one more, in the meantime
    agreement.see(["wrong"], now=120)
    with pytest.raises(InvariantError):
        agreement.see(["wrong"], now=120.1)


def test_nothing_is_expected_while_nobody_could_tell_the_kubelet() -> None:
    agreement = Agreement(seconds=5)
    agreement.changed(now=100)
    agreement.see(None, now=150)
    assert not agreement.agrees
    agreement.see(["wrong"], now=154)
    agreement.see([], now=155)
    assert (agreement.agrees, agreement.agreed_at) == (True, 155)


def test_a_chip_has_one_owner_who_has_it_for_himself() -> None:
    invariants.check_owners([("a", ["x"], True), ("b", ["y"], True)])
    invariants.check_owners([("a", ["x"], False), ("b", ["x"], False)])
    for first, second in ((True, True), (True, False), (False, True)):
        with pytest.raises(InvariantError, match="x was given to a and to b"):
            invariants.check_owners([("a", ["x"], first), ("b", ["x", "y"], second)])


def test_tracebacks_are_found_in_and_beside_the_log() -> None:
    invariants.check_line({"event": "device-unhealthy", "level": "error"})
    with pytest.raises(InvariantError):
        invariants.check_line({"event": "call-failed", "exception": "Traceback..."})
    with pytest.raises(InvariantError):
        invariants.check_line({"raw": "Traceback (most recent call last):"})


def test_a_line_that_comes_with_each_poll_is_found() -> None:
    line = {"time": "1", "event": "device-unhealthy", "device": "a"}
    invariants.check_quiet([line, {**line, "device": "b"}])
    with pytest.raises(InvariantError, match="2 times"):
        invariants.check_quiet([line, {**line, "time": "2"}])


def test_growth_is_found() -> None:
    growth = Growth(settled_after=2)
    growth.see(20, 10)
    growth.see(25, 12)  # still warming up: this is what counts
    growth.see(30, 14)
    with pytest.raises(InvariantError, match="memory"):
        growth.see(25 + invariants.MEMORY_MIB + 0.1, 12)
    with pytest.raises(InvariantError, match="descriptors"):
        growth.see(25, 12 + invariants.DESCRIPTORS + 1)


def test_descriptors_that_were_given_up_may_be_taken_again() -> None:
    growth = Growth(settled_after=1, usual=24)
    growth.see(20, 13)  # it began without any to spare
    growth.see(20, 24)
    with pytest.raises(InvariantError, match="descriptors"):
        growth.see(20, 24 + invariants.DESCRIPTORS + 1)


def test_an_end_that_nobody_asked_for_is_found() -> None:
    invariants.check_alive(None, ended_by_us=False)
    invariants.check_alive(-9, ended_by_us=True)
    with pytest.raises(InvariantError, match="exit status 1"):
        invariants.check_alive(1, ended_by_us=False)


# -- the campaign ---------------------------------------------------------------------


def test_a_seed_is_the_whole_plan() -> None:
    def rounds(seed: int) -> list[object]:
        deck: list[str] = []
        return [plan(seed, number, may_end=True, deck=deck) for number in range(30)]

    assert rounds(1) == rounds(1)
    assert rounds(1) != rounds(2)


def test_every_fault_comes_before_any_comes_twice() -> None:
    deck: list[str] = []
    names: list[str] = []
    number = 0
    while len(names) < len(ACTIONS):
        names += [step.name for step in plan(7, number, may_end=True, deck=deck).steps]
        number += 1
    assert set(names[: len(ACTIONS)]) == set(ACTIONS)


def test_no_daemon_is_ended_where_a_long_life_is_wanted() -> None:
    deck: list[str] = []
    rounds = [plan(7, number, may_end=False, deck=deck) for number in range(60)]
    assert not any(ACTIONS[step.name].ends for one in rounds for step in one.steps)


def test_the_table_has_the_slowest_recovery() -> None:
    record = Record()
    record.done("ecc")
    since = record._waiting["ecc"]
    record.agreed(since - 1)  # from before it
    record.agreed(since + 2.5)
    record.agreed(since + 9)  # long after it
    assert record.counters_by_fault["ecc"].slowest == pytest.approx(2.5)


def test_every_defect_still_has_its_place_in_the_daemon() -> None:
    """In a process of its own: they are not taken back."""
    code = "from tests.faults.mutants import MUTANTS\nfor mutant in MUTANTS.values(): mutant()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
