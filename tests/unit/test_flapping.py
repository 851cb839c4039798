"""A device that fails again and again is offered less and less often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moffett_device_plugin.devices.fault_record import FaultFile
from moffett_device_plugin.devices.health.evaluate import Evaluation, evaluate
from moffett_device_plugin.devices.health.flapping import Faults as Count
from moffett_device_plugin.devices.health.flapping import Record
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot
from moffett_device_plugin.hardware.simulation import NODE, Faults
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.runtime.state_file import StateFileError
from moffett_device_plugin.settings.options import OPTIONS
from tests.support.values import ids_of, snapshot_of

CHIP, OTHER = ids_of("2xS4")
POLICY = HealthPolicy(recovery_seconds=5.0, flapping_seconds=(60.0, 600.0, 3600.0))
BROKEN, WELL = Faults().with_fault(CHIP, "config"), Faults()
DAY = 86_400.0


class Node:
    """One node of two chips, looked at as often as its time asks for."""

    def __init__(self, policy: HealthPolicy = POLICY) -> None:
        self.policy = policy
        self.snapshot = Snapshot()
        self.last = Evaluation({}, {})
        self.at(0, WELL)

    def at(self, now: float, faults: Faults) -> bool:
        """Whether the chip is offered at `now`."""
        self.snapshot = snapshot_of("2xS4", faults, self.snapshot)
        self.last = evaluate(self.snapshot, self.last.histories, self.policy, now, epoch=0.0)
        return self.last.health_statuses[CHIP].healthy

    def message(self) -> str:
        return self.last.health_statuses[CHIP].reasons[0].message


def test_a_chip_that_fails_20_times_an_hour_is_offered_five_times_at_the_most() -> None:
    node, offered, times = Node(), True, 0
    for second in range(3600):
        now = node.at(second + 1, BROKEN if second % 180 < 10 else WELL)
        times += now and not offered
        offered = now
    assert 1 <= times <= 5
    assert not offered


@pytest.mark.parametrize(("fault", "wait"), [(1, 5), (2, 60), (3, 600), (4, 3600), (5, 3600)])
def test_it_has_to_be_well_for_longer_after_each_fault(fault: int, wait: int) -> None:
    node, now = Node(), 0.0
    for _ in range(fault - 1):
        node.at(now + 1, BROKEN)
        node.at(now + 2, WELL)
        now += 2 + 3600
        assert node.at(now, WELL)
    node.at(now + 1, BROKEN)
    node.at(now + 2, WELL)
    assert node.last.again_at == now + 2 + wait
    assert not node.at(now + 1.9 + wait, WELL)
    assert node.at(now + 2 + wait, WELL)


def test_the_reason_says_how_often_and_until_when() -> None:
    node = Node()
    for now in (0, 100):
        node.at(now + 1, BROKEN)
        assert not node.at(now + 2, WELL)
        node.at(now + 50, WELL)
    (reason,) = node.last.health_statuses[CHIP].reasons
    assert reason.code == "flapping"
    assert reason.message == (
        "config-unreadable is over; 2 faults, each within a day of the one before:"
        " offered again at 1970-01-01T00:02:42Z if it stays well"
    )


def test_a_day_without_a_fault_forgets_them() -> None:
    node = Node()
    for now in (0.0, 1000.0, 1000.0 + DAY):
        node.at(now + 1, BROKEN)
        node.at(now + 2, WELL)
    assert node.last.again_at == 1000.0 + DAY + 2 + 5


def test_what_is_wrong_with_the_whole_node_is_no_fault_of_a_device() -> None:
    node = Node()
    for now in (0, 100, 200):
        node.at(now + 1, Faults().with_fault(NODE, "sola-old"))
        assert not node.last.health_statuses[CHIP].healthy
        node.at(now + 2, WELL)
        assert node.last.again_at == now + 2 + 5
        node.at(now + 7, WELL)


def test_a_device_that_comes_up_with_its_driver_late_has_not_failed() -> None:
    node = Node()
    node.last = Evaluation({}, {})
    for now in (1, 101):
        node.at(now, BROKEN)
        node.at(now + 1, WELL)
        assert node.last.again_at == now + 1 + 5
        node.at(now + 6, WELL)


def test_without_the_setting_each_fault_is_as_the_first() -> None:
    node = Node(HealthPolicy(recovery_seconds=5.0))
    for now in (0, 100, 200):
        node.at(now + 1, BROKEN)
        node.at(now + 2, WELL)
        assert node.at(now + 7, WELL)


# -- what is kept -----------------------------------------------------------------------


def test_the_file_keeps_faults_by_the_time_of_the_day(tmp_path: Path) -> None:
    file = FaultFile(tmp_path / "state")
    record = Record(CHIP, Count(3, 50.0), unhealthy=True, since=60.0, codes=("bus-gone",))
    file.write([record, Record(OTHER, Count(1, 10.0))], 1000.0)
    # The clock of another boot.
    found = file.read(900.0, 200.0)
    assert found[0] == Record(
        CHIP, Count(3, 150.0), unhealthy=True, since=160.0, codes=("bus-gone",)
    )
    assert file.forget([CHIP])
    assert not file.forget([CHIP])
    assert [record.device for record in file.read(900.0, 200.0)] == [OTHER]
    assert file.forget(None)
    assert file.read(900.0, 200.0) == ()


def test_what_was_forgotten_is_not_written_again(tmp_path: Path) -> None:
    file = FaultFile(tmp_path)
    one, other = (Record(device, Count(1, 10.0)) for device in (CHIP, OTHER))
    file.write([one], 0.0)
    assert file.forget([CHIP])
    file.write([one, other], 0.0, written=[CHIP])
    assert file.read(0.0, 20.0) == (other,)


def test_a_time_in_the_future_is_now(tmp_path: Path) -> None:
    """The clock of the node was set back."""
    file = FaultFile(tmp_path)
    file.write([Record(CHIP, Count(3, 50.0), unhealthy=True, since=60.0)], 1000.0)
    (record,) = file.read(2000.0, 5.0)
    assert (record.faults.last, record.since) == (-950.0, -940.0)
    (record,) = file.read(0.0, 5.0)
    assert (record.faults.last, record.since) == (5.0, 5.0)


@pytest.mark.parametrize(
    "item",
    [{}, {"id": 1}, {"id": "a", "faults": True, "last": 1, "codes": []},
     {"id": "a", "faults": 1, "last": "x", "codes": []},
     {"id": "a", "faults": 1, "last": 1, "codes": [1]},
     {"id": "a", "faults": 0, "last": 1, "codes": []}],
)  # fmt: skip
def test_what_is_no_record_is_left_out(tmp_path: Path, item: dict[str, object]) -> None:
    file = FaultFile(tmp_path)
    file.path.write_text(json.dumps({"version": 1, "devices": [item]}))
    assert file.read(0.0, 0.0) == ()
    file.path.write_text("{")
    with pytest.raises(StateFileError):
        file.read(0.0, 0.0)


@pytest.mark.parametrize("text", ["x", "60,5", "-1", "86401", "60,,600"])
def test_what_are_no_times_is_refused(text: str) -> None:
    option = OPTIONS["--flapping-seconds"]
    with pytest.raises(ConfigurationError, match="use "):
        option.parse("health.flappingSeconds", text)
