"""When a device is unhealthy, why, and when it is healthy again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.evaluate import RECOVERING, Memories, judge
from moffett_device_plugin.devices.health.policy import HealthPolicy, parse_rules
from moffett_device_plugin.devices.health.reasons import Verdict
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
        self.memories: Memories = {}
        self.policy = policy
        self.again_at: float | None = None

    def look(self, faults: Faults, at: float) -> Verdict:
        return self.judge(snapshot_of("2xS4", faults, self.snapshot), at)

    def judge(self, snapshot: Snapshot, at: float) -> Verdict:
        self.snapshot = snapshot
        judgement = judge(snapshot, self.memories, self.policy, at)
        self.memories, self.again_at = judgement.memories, judgement.again_at
        assert judgement.verdicts[OTHER].healthy, "the other chip is never affected"
        return judgement.verdicts[CHIP]


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
    assert patient.look(Faults(), 0).healthy
    verdict = patient.look(fault(name), 0.001)
    assert not verdict.healthy
    assert code in verdict.codes
    assert all(reason.message for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("name", "code"), [("link", "link-degraded"), ("corrected", "ecc-corrected")]
)
def test_warnings_leave_it_healthy(name: str, code: str) -> None:
    verdict = Patient().look(fault(name), 0)
    assert verdict.healthy
    assert verdict.codes == {code}


@pytest.mark.parametrize("name", ["zero", "warm"])
def test_a_sensor_that_reads_zero_or_a_warm_chip_is_no_failure(name: str) -> None:
    assert Patient().look(fault(name), 0) == Verdict(True)


def test_a_device_that_left_the_bus_says_that_and_nothing_else() -> None:
    patient = Patient()
    patient.look(fault("ecc"), 0)
    assert patient.look(fault("gone").with_fault(CHIP, "ecc"), 1).codes == {"bus-gone"}


def test_a_silent_mx_smi_makes_nothing_unhealthy() -> None:
    patient = Patient()
    patient.look(Faults(), 0)
    verdict = patient.judge(observe_silence(patient.snapshot, "no end after 5 s; killed"), 1)
    assert verdict.healthy
    assert verdict.codes == {"mx-smi-unresponsive"}
    assert "5 s" in verdict.reasons[0].message


def test_a_silent_mx_smi_heals_nothing_either() -> None:
    patient = Patient()
    patient.look(fault("ecc"), 0)
    silent = observe_silence(patient.snapshot, "broken")
    assert "ecc-uncorrected" in patient.judge(silent, 100).codes


def test_an_old_sola_makes_every_device_unhealthy_and_names_both_versions() -> None:
    snapshot = snapshot_of("2xS4", Faults().with_fault(NODE, "sola-old"))
    verdicts = judge(snapshot, {}, POLICY, 0).verdicts
    assert not any(verdict.healthy for verdict in verdicts.values())
    message = verdicts[CHIP].reasons[0].message
    assert "3.4.2" in message
    assert "3.5.0" in message


@pytest.mark.parametrize("version", [None, "unknown", "3.5.0", "3.10.0", "4.0"])
def test_a_new_enough_or_unknown_sola_is_fine(version: str | None) -> None:
    snapshot = replace(
        snapshot_of("2xS4"), smi_sola_version=version, installed_sola_version=version
    )
    assert judge(snapshot, {}, POLICY, 0).verdicts[CHIP].healthy


def test_it_is_healthy_again_only_after_the_cause_was_gone_for_a_while() -> None:
    patient = Patient()
    patient.look(fault("config"), 0)
    first = patient.look(Faults(), 100)  # nobody looked in between: the wait begins here
    assert first.codes == {RECOVERING}
    assert "config-unreadable" in first.reasons[0].message
    assert patient.again_at == 105
    assert not patient.look(Faults(), 104.9).healthy
    assert patient.look(Faults(), 105).healthy
    assert patient.again_at is None


def test_a_flapping_chip_stays_unhealthy() -> None:
    patient = Patient()
    verdicts = [
        patient.look(fault("config") if second % 4 == 0 else Faults(), second)
        for second in range(40)
    ]
    assert not any(verdict.healthy for verdict in verdicts)


def test_a_device_that_is_well_at_the_first_look_does_not_wait() -> None:
    assert Patient().look(Faults(), 0).healthy


def test_an_overheated_chip_has_to_cool_to_the_lower_limit() -> None:
    patient = Patient(HealthPolicy(recovery_seconds=0))
    assert not patient.look(fault("hot"), 0).healthy
    assert patient.look(fault("warm"), 1).codes == {"over-temperature"}  # 84 C
    assert patient.look(Faults(), 2).healthy
    assert patient.look(fault("warm"), 3).healthy


def test_a_hot_chip_whose_sensor_reads_zero_stays_hot() -> None:
    patient = Patient(HealthPolicy(recovery_seconds=0))
    patient.look(fault("hot"), 0)
    assert not patient.look(fault("zero"), 1).healthy


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
    snapshot = snapshot_of("2xS4", faults, before)
    if rule == "mx-smi-unresponsive":
        snapshot = before
    on = judge(snapshot, {}, parse_rules(""), 0).verdicts[CHIP]
    off = judge(snapshot, {}, parse_rules(f"{rule}=off"), 0).verdicts[CHIP]
    assert rule in on.codes
    assert rule not in off.codes


def test_limits_can_be_set() -> None:
    lenient = parse_rules("ecc-uncorrected=1, over-temperature=97/60, ecc-corrected=12")
    snapshot = snapshot_of(
        "2xS4", fault("ecc").with_fault(CHIP, "hot").with_fault(CHIP, "corrected")
    )
    assert judge(snapshot, {}, lenient, 0).verdicts[CHIP] == Verdict(True)
    strict = parse_rules("over-temperature=42")
    assert strict.limits["over-temperature"] == (42, 32)
    assert not judge(snapshot_of("2xS4"), {}, strict, 0).verdicts[CHIP].healthy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("over-temprature=90", "did you mean over-temperature?"),
        ("over-temperature=80/90", "must not be above"),
        ("over-temperature=hot", "FAIL/RECOVER"),
        ("no-driver=3", "takes on or off"),
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
