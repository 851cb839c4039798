"""Which events a change of health makes, and what they say."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.health.reasons import HealthStatus, Reason
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.kubernetes.condition import condition_of
from moffett_device_plugin.kubernetes.events import (
    MAX_MESSAGE,
    HealthEvent,
    Occurrence,
    event_name,
    event_object,
    events_between,
)
from tests.support.values import ids_of, snapshot_of, state_of

IDS = ids_of("2xS30")
SICK = IDS[5]


@dataclass
class Pod:
    namespace: str = "default"
    pod: str = "inference"
    container: str = "main"


def faulty(*names: str) -> NodeState:
    faults = Faults()
    for name in names:
        faults = faults.with_fault(SICK, name)
    snapshot = snapshot_of("2xS30", faults, snapshot_of("2xS30"))
    return NodeState(
        snapshot, evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses, settled=True
    )


def between(
    before: NodeState, after: NodeState, holders: dict[str, list[Pod]] | None = None
) -> list[HealthEvent]:
    return list(events_between(before, after, holders or {}))


def test_nothing_happens_nothing_is_told() -> None:
    assert between(faulty("ecc"), faulty("ecc")) == []
    assert between(NodeState(), faulty()) == []


def test_a_device_that_fails_says_which_why_and_who_holds_it() -> None:
    (event,) = between(faulty(), faulty("ecc"), {SICK: [Pod(), Pod(pod="other")]})
    assert (event.device, event.reason, event.is_warning) == (SICK, "SPUUnhealthy", True)
    assert event.message.startswith(
        f"{SICK} (index 5, card 2023243080102) is unhealthy: ecc-uncorrected: 1 uncorrected"
    )
    assert event.message.endswith("; held by default/inference (main), default/other (main)")


def test_the_holders_of_other_devices_are_not_named() -> None:
    (event,) = between(faulty(), faulty("ecc"), {IDS[0]: [Pod()]})
    assert "held" not in event.message


def test_a_device_that_recovers_says_from_what() -> None:
    (event,) = between(faulty("ecc"), faulty())
    assert (event.reason, event.is_warning) == ("SPUHealthy", False)
    assert event.message.endswith("is healthy again, after ecc-uncorrected")


def test_a_further_cause_is_told_alone_and_waiting_is_no_news() -> None:
    (event,) = between(faulty("ecc"), faulty("ecc", "aer"))
    assert event.codes == {"aer-fatal"}
    recovering = HealthStatus(False, (Reason("recovering", "soon"),))
    waiting = replace(faulty(), health_statuses={**faulty().health_statuses, SICK: recovering})
    assert between(faulty("ecc"), waiting) == []
    (event,) = between(waiting, faulty("ecc"))
    assert event.codes == {"ecc-uncorrected"}, "it failed again before it had recovered"


def test_warnings_come_and_go() -> None:
    (event,) = between(faulty(), faulty("link"))
    assert event.reason == "SPUWarning"
    assert event.codes == {"link-degraded"}
    (event,) = between(faulty("link"), faulty())
    assert (event.reason, event.is_warning) == ("SPUWarningCleared", False)


def test_a_device_that_is_sick_when_first_seen_is_told_of() -> None:
    (event,) = between(NodeState(), faulty("ecc"))
    assert event.reason == "SPUUnhealthy"


def test_a_long_reason_leaves_room_for_who_holds_it() -> None:
    health_status = HealthStatus(False, (Reason("ecc-uncorrected", "x" * 5000),))
    state = replace(faulty(), health_statuses={**faulty().health_statuses, SICK: health_status})
    holders = [Pod(pod=f"pod-{n}") for n in range(100)]
    (event,) = between(faulty(), state, {SICK: holders})
    assert len(event.message) <= MAX_MESSAGE
    assert event.message.startswith(SICK)
    assert event.message.endswith(" and 95 more")


def test_a_repetition_is_the_same_and_another_cause_is_not() -> None:
    (one,) = between(faulty(), faulty("ecc"))
    (two,) = between(faulty(), faulty("ecc"), {SICK: [Pod()]})
    (other,) = between(faulty(), faulty("aer"))
    assert one.key == two.key
    assert one.key != other.key


def test_the_event_object_is_what_kubectl_describe_node_looks_for() -> None:
    occurrence = Occurrence("n.1", "SPUUnhealthy", "text", True, 0.0, 60.0, 3)
    event = event_object(occurrence, "node-1", "default")
    assert event["involvedObject"]["kind"] == "Node"
    assert event["involvedObject"]["name"] == event["involvedObject"]["uid"] == "node-1"
    assert event["firstTimestamp"] == "1970-01-01T00:00:00Z"
    assert event["lastTimestamp"] == "1970-01-01T00:01:00Z"
    assert (event["type"], event["count"]) == ("Warning", 3)


@pytest.mark.parametrize("node", ["n", "a" * 253, "a" * 235 + "." + "b" * 17])
def test_event_names_are_legal(node: str) -> None:
    name = event_name(node, 1_790_000_000_000_000_000)
    assert len(name) <= 253
    assert ".." not in name
    assert "-." not in name


def test_the_condition_of_a_healthy_node() -> None:
    condition = condition_of(faulty())
    assert (condition.status, condition.reason) == ("True", "DevicesHealthy")
    assert condition.message == "6 devices on 2 cards healthy"
    assert condition_of(faulty("link")).status == "True", "a warning is no failure"


def test_the_condition_of_a_sick_node_names_the_sick() -> None:
    condition = condition_of(faulty("ecc", "aer"))
    assert (condition.status, condition.reason) == ("False", "DevicesUnhealthy")
    assert condition.message == (f"1 of 6 devices unhealthy: {SICK} (aer-fatal, ecc-uncorrected)")


def test_the_condition_does_not_change_with_a_count() -> None:
    state = faulty("ecc")
    worse = HealthStatus(False, (Reason("ecc-uncorrected", "999 uncorrected memory errors"),))
    after = replace(state, health_statuses={**state.health_statuses, SICK: worse})
    assert condition_of(after) == condition_of(state)


def test_the_condition_of_a_node_without_devices_is_not_known() -> None:
    assert condition_of(NodeState(settled=True)).status == "Unknown"


def test_the_condition_of_very_many_sick_devices_is_cut_with_their_number() -> None:
    state = state_of("100xS30")
    unhealthy = HealthStatus(False, (Reason("bus-gone", "it left the bus"),))
    state = replace(state, health_statuses=dict.fromkeys(state.health_statuses, unhealthy))
    message = condition_of(state).message
    assert len(message) <= MAX_MESSAGE
    assert message.startswith("300 of 300 devices unhealthy: ")
    listed = message.count("(bus-gone)")
    assert message.endswith(f"and {300 - listed} more")
