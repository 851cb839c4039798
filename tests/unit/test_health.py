"""When a device is unhealthy, why, and when it is healthy again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.evaluate import RECOVERING, HealthHistories, evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy, parse_rules
from moffett_device_plugin.devices.health.reasons import HealthStatus
from moffett_device_plugin.devices.health.rules import RULES, Rule
from moffett_device_plugin.devices.inventory import Snapshot, observe_silence
from moffett_device_plugin.hardware.simulation import NODE, Faults
from moffett_device_plugin.runtime.errors import ConfigurationError
from tests.support.values import ids_of, snapshot_of

CHIP, OTHER = ids_of("2xS4")
POLICY = HealthPolicy(recovery_seconds=5.0)


class Patient:
    """One node of two chips, looked at again and again."""

    def __init__(self, policy: HealthPolicy = POLICY) -> None:
        self.snapshot = Snapshot()
        self.histories: HealthHistories = {}
        self.policy = policy
        self.again_at: float | None = None

    def rescan(self, faults: Faults, at: float) -> HealthStatus:
        return self.evaluate(snapshot_of("2xS4", faults, self.snapshot), at)

    def evaluate(self, snapshot: Snapshot, at: float) -> HealthStatus:
        self.snapshot = snapshot
        evaluation = evaluate(snapshot, self.histories, self.policy, at)
        self.histories, self.again_at = evaluation.histories, evaluation.again_at
        assert evaluation.health_statuses[OTHER].healthy, "the other chip is never affected"
        return evaluation.health_statuses[CHIP]


def fault(name: str) -> Faults:
    return Faults().with_fault(CHIP, name)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("config", "config-unreadable"),
        ("driver", "no-driver"),
        ("node", "no-device-node"),
        ("firmware", "firmware-not-loaded"),
        ("ecc", "ecc-uncorrected"),
        ("aer", "aer-fatal"),
        ("hot", "over-temperature"),
    ],
)
def test_each_cause_makes_unhealthy_at_once_and_says_so(name: str, code: str) -> None:
    patient = Patient()
    assert patient.rescan(Faults(), 0).healthy
    if name == "firmware":  # what was listed before has to be missing twice
        assert patient.rescan(fault(name), 0.001).healthy
    health_status = patient.rescan(fault(name), 0.001)
    assert not health_status.healthy
    assert code in health_status.codes
    assert all(reason.message for reason in health_status.reasons)


@pytest.mark.parametrize(
    ("name", "code"), [("link", "link-degraded"), ("corrected", "ecc-corrected")]
)
def test_warnings_leave_it_healthy(name: str, code: str) -> None:
    health_status = Patient().rescan(fault(name), 0)
    assert health_status.healthy
    assert health_status.codes == {code}


@pytest.mark.parametrize("name", ["zero", "warm"])
def test_a_sensor_that_reads_zero_or_a_warm_chip_is_no_failure(name: str) -> None:
    assert Patient().rescan(fault(name), 0) == HealthStatus(True)


def test_a_device_that_left_the_bus_says_that_and_nothing_else() -> None:
    patient = Patient()
    patient.rescan(fault("ecc"), 0)
    assert patient.rescan(fault("gone").with_fault(CHIP, "ecc"), 1).codes == {"bus-gone"}


def test_a_silent_mx_smi_makes_nothing_unhealthy() -> None:
    patient = Patient()
    patient.rescan(Faults(), 0)
    health_status = patient.evaluate(
        observe_silence(patient.snapshot, "no end after 5 s; killed"), 1
    )
    assert health_status.healthy
    assert health_status.codes == {"mx-smi-unresponsive"}
    assert "5 s" in health_status.reasons[0].message


def test_a_silent_mx_smi_heals_nothing_either() -> None:
    patient = Patient()
    patient.rescan(fault("ecc"), 0)
    silent = observe_silence(patient.snapshot, "broken")
    assert "ecc-uncorrected" in patient.evaluate(silent, 100).codes


def test_an_old_sola_makes_every_device_unhealthy_and_names_both_versions() -> None:
    snapshot = snapshot_of("2xS4", Faults().with_fault(NODE, "sola-old"))
    health_statuses = evaluate(snapshot, {}, POLICY, 0).health_statuses
    assert not any(health_status.healthy for health_status in health_statuses.values())
    message = health_statuses[CHIP].reasons[0].message
    assert "3.4.2" in message
    assert "3.5.0" in message


@pytest.mark.parametrize("version", [None, "unknown", "3.5.0", "3.10.0", "4.0"])
def test_a_new_enough_or_unknown_sola_is_fine(version: str | None) -> None:
    snapshot = replace(
        snapshot_of("2xS4"), smi_sola_version=version, installed_sola_version=version
    )
    assert evaluate(snapshot, {}, POLICY, 0).health_statuses[CHIP].healthy


def test_it_is_healthy_again_only_after_the_cause_was_gone_for_a_while() -> None:
    patient = Patient()
    patient.rescan(fault("config"), 0)
    first = patient.rescan(Faults(), 100)  # nobody looked in between: the wait begins here
    assert first.codes == {RECOVERING}
    assert "config-unreadable" in first.reasons[0].message
    assert patient.again_at == 105
    assert not patient.rescan(Faults(), 104.9).healthy
    assert patient.rescan(Faults(), 105).healthy
    assert patient.again_at is None


def test_a_flapping_chip_stays_unhealthy() -> None:
    patient = Patient()
    health_statuses = [
        patient.rescan(fault("config") if second % 4 == 0 else Faults(), second)
        for second in range(40)
    ]
    assert not any(health_status.healthy for health_status in health_statuses)


def test_a_device_that_is_well_at_the_first_look_does_not_wait() -> None:
    assert Patient().rescan(Faults(), 0).healthy


def test_an_overheated_chip_has_to_cool_to_the_lower_limit() -> None:
    patient = Patient(HealthPolicy(recovery_seconds=0))
    assert not patient.rescan(fault("hot"), 0).healthy
    assert patient.rescan(fault("warm"), 1).codes == {"over-temperature"}  # 84 C
    assert patient.rescan(Faults(), 2).healthy
    assert patient.rescan(fault("warm"), 3).healthy


def test_a_hot_chip_whose_sensor_reads_zero_stays_hot() -> None:
    patient = Patient(HealthPolicy(recovery_seconds=0))
    patient.rescan(fault("hot"), 0)
    assert not patient.rescan(fault("zero"), 1).healthy


TRIGGERS = {
    "bus-gone": "gone", "config-unreadable": "config", "no-driver": "driver",
    "no-device-node": "node", "firmware-not-loaded": "firmware", "ecc-uncorrected": "ecc",
    "aer-fatal": "aer", "over-temperature": "hot", "link-degraded": "link",
    "ecc-corrected": "corrected",
}  # fmt: skip


@pytest.mark.parametrize("rule", [*TRIGGERS, "sola-too-old", "mx-smi-unresponsive"])
def test_every_rule_can_be_turned_off(rule: str) -> None:
    faults = fault(TRIGGERS[rule]) if rule in TRIGGERS else Faults().with_fault(NODE, "sola-old")
    before = observe_silence(snapshot_of("2xS4"), "broken")  # for mx-smi-unresponsive
    snapshot = snapshot_of("2xS4", faults, snapshot_of("2xS4", faults, before))
    if rule == "mx-smi-unresponsive":
        snapshot = before
    on = evaluate(snapshot, {}, parse_rules(""), 0).health_statuses[CHIP]
    off = evaluate(snapshot, {}, parse_rules(f"{rule}=off"), 0).health_statuses[CHIP]
    assert rule in on.codes
    assert rule not in off.codes


def test_limits_can_be_set() -> None:
    lenient = parse_rules("ecc-uncorrected=1, over-temperature=97/60, ecc-corrected=12")
    snapshot = snapshot_of(
        "2xS4", fault("ecc").with_fault(CHIP, "hot").with_fault(CHIP, "corrected")
    )
    assert evaluate(snapshot, {}, lenient, 0).health_statuses[CHIP] == HealthStatus(True)
    strict = parse_rules("over-temperature=42")
    assert strict.limits["over-temperature"] == (42, 32)
    assert not evaluate(snapshot_of("2xS4"), {}, strict, 0).health_statuses[CHIP].healthy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("over-temprature=90", "did you mean over-temperature?"),
        ("over-temperature=80/90", "must not be above"),
        ("over-temperature=hot", "FAIL/RECOVER"),
        ("no-driver=3", "takes on, off or warning"),
        ("ecc-corrected", "a number"),
        ("aer-fatal=-1", "a number"),
        ("aer-fatal=nan", "a number"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_is_allowed(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_rules(text, "SPU_HEALTH")
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"SPU_HEALTH: '{text}' is not valid: ")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_says_what_to_do_and_what_can_be_set(rule: Rule) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/health.md").read_text()
    assert rule.remedy
    assert len(rule.limits) <= 2
    assert f"`{rule.code}` | " in page
