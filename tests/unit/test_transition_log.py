"""What the log says of mx-smi, and how often."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import (
    Snapshot,
    observe_bus,
    observe_silence,
    observe_smi,
)
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.devices.transition_log import TransitionLog
from moffett_device_plugin.hardware.simulation import Faults, build, bus_scan, parse_spec
from moffett_device_plugin.hardware.types import SmiReport
from tests.support.values import ids_of, snapshot_of

Look = Callable[[Snapshot], Snapshot]


def answers(snapshot: Snapshot) -> Snapshot:
    return observe_smi(snapshot, SmiReport(devices=()), snapshot.scan)


def fails(snapshot: Snapshot) -> Snapshot:
    return observe_silence(snapshot, "no end after 5 s; killed")


def goes(snapshot: Snapshot) -> Snapshot:
    return observe_silence(snapshot, None)


@pytest.mark.parametrize(
    ("looks", "logged"),
    [
        ([answers, answers, answers], ["mx-smi-answers"]),
        ([fails, fails, fails], ["mx-smi-failed"]),
        (
            [answers, fails, fails, fails, answers, answers],
            ["mx-smi-answers", "mx-smi-failed", "mx-smi-answers"],
        ),
        ([answers, goes, goes, answers], ["mx-smi-answers", "mx-smi-gone", "mx-smi-answers"]),
    ],
)
def test_each_change_of_mx_smi_is_logged_once(
    looks: list[Look], logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state, transitions = NodeState(), TransitionLog(lambda: 0.0)
    for rescan in looks:
        before, state = state, NodeState(rescan(state.snapshot))
        transitions.record(before, state)
    assert [record.getMessage() for record in caplog.records] == logged


def record(states: list[NodeState], seconds: float) -> None:
    """`states` one after another, `seconds` apart, until ten minutes are over."""
    now = 0.0
    transitions = TransitionLog(lambda: now)
    before = NodeState()
    for after in states * int(600 / seconds / len(states)):
        transitions.record(before, after)
        before, now = after, now + seconds


def flapping(fails: Look) -> list[NodeState]:
    well = snapshot_of("8xS30")
    return [evaluated(well), evaluated(fails(well))]


def evaluated(snapshot: Snapshot) -> NodeState:
    return NodeState(snapshot, evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses)


def lists_nothing(snapshot: Snapshot) -> Snapshot:
    empty = SmiReport()
    for _ in range(2):
        snapshot = observe_smi(snapshot, empty, snapshot.scan)
    return snapshot


def is_old(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, smi_sola_version="3.4.0")


@pytest.mark.parametrize("how", [fails, goes, lists_nothing, is_old])
def test_a_flapping_mx_smi_of_24_devices_is_less_than_60_lines_in_ten_minutes(
    how: Look, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    record(flapping(how), seconds=5.0)
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("device-found") == 24
    assert len(lines) < 60
    assert len(lines) > 24, "that it happens is logged"


def test_a_cause_of_the_whole_node_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    well, bad = flapping(lists_nothing)
    TransitionLog(lambda: 0.0).record(well, bad)
    (line,) = [r for r in caplog.records if r.getMessage() == "device-unhealthy"]
    assert len(line.devices) == 24  # type: ignore[attr-defined]
    assert line.reason == "firmware-not-loaded"  # type: ignore[attr-defined]


def test_the_devices_of_one_card_have_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for device_id in ids_of("8xS30")[:3]:
        faults = faults.with_fault(device_id, "gone")
    well = snapshot_of("8xS30")
    bad = observe_bus(well, bus_scan(build(parse_spec("8xS30")), faults))
    TransitionLog(lambda: 0.0).record(evaluated(well), evaluated(bad))
    assert [r.device for r in caplog.records] == ids_of("8xS30")[:3]  # type: ignore[attr-defined]


def test_lines_that_were_left_out_are_counted_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    transitions = TransitionLog(lambda: now)
    well, bad = flapping(fails)
    for _ in range(10):
        transitions.record(well, bad)
        transitions.record(bad, well)
    caplog.clear()
    now = 601.0
    transitions.record(well, replace(well, settled=True))
    left_out = {r.of: r.times for r in caplog.records}  # type: ignore[attr-defined]
    assert left_out == {"mx-smi-failed": 6, "mx-smi-answers": 6}
