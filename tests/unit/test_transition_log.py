"""What the log says of mx-smi, and how often."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from moffett_device_plugin.devices.inventory import Snapshot, observe_silence, observe_smi
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.devices.transition_log import TransitionLog
from moffett_device_plugin.hardware.types import SmiReport

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
