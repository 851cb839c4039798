"""Devices that an operator takes out of service: which ones, who says so, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moffett_device_plugin.__main__ import main
from moffett_device_plugin.devices.cordon_file import CordonFile
from moffett_device_plugin.devices.health.cordon import Cordon, parse_target, without_device
from moffett_device_plugin.devices.health.evaluate import Evaluation, evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.runtime.state_file import StateFileError
from tests.support.values import ids_of, state_of

NODE = ("--simulate", "2xS30")
IDS = ids_of("2xS30")
CARD = "card-0000:34:00.0"


def evaluated(*cordons: Cordon) -> Evaluation:
    return evaluate(state_of("2xS30").snapshot, {}, HealthPolicy(), 0.0, cordons)


def unhealthy(*cordons: Cordon) -> list[str]:
    statuses = evaluated(*cordons).health_statuses
    return [device_id for device_id, status in statuses.items() if not status.healthy]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("36:00.0", "0000:36:00.0"),
        (" 0:36:00.0 ", "0000:36:00.0"),
        ("card-34:00.0", CARD),
        ("all", "all"),
        ("card-", None),
        ("card-all", None),
        ("36", None),
        ("", None),
    ],
)
def test_an_id_is_written_as_people_write_it(text: str, target: str | None) -> None:
    assert parse_target(text) == target


def test_a_cordon_is_of_a_device_of_a_card_or_of_all() -> None:
    assert unhealthy(Cordon(IDS[1], "me")) == [IDS[1]]
    assert unhealthy(Cordon(CARD, "me")) == IDS[:3]
    assert unhealthy(Cordon("all", "me")) == IDS
    assert unhealthy(Cordon("0000:99:00.0", "me")) == []


def test_the_reason_says_who_and_why_for_each_cordon() -> None:
    cordons = (Cordon(IDS[0], "the configuration"), Cordon(CARD, "the command cordon", "hot"))
    (reason,) = evaluated(*cordons).health_statuses[IDS[0]].reasons
    assert reason.code == "cordoned"
    assert reason.message == "by the configuration; by the command cordon: hot"


def test_an_uncordoned_device_is_offered_at_once() -> None:
    snapshot = state_of("2xS30").snapshot
    before = evaluate(snapshot, {}, HealthPolicy(), 0.0, [Cordon("all", "me")])
    after = evaluate(snapshot, before.histories, HealthPolicy(), 0.1)
    assert all(status.healthy for status in after.health_statuses.values())


def test_a_cordon_of_nothing_is_known() -> None:
    devices = state_of("2xS30").snapshot.devices
    gone = Cordon("0000:99:00.0", "me")
    assert without_device(devices, [Cordon(CARD, "me"), gone, Cordon("all", "me")]) == (gone,)


def test_a_container_that_has_a_cordoned_device_may_start_anew() -> None:
    state = state_of("2xS30")
    statuses = evaluated(Cordon(IDS[0], "me")).health_statuses
    cordoned = NodeState(state.snapshot, statuses, settled=True)
    assert not cordoned.healthy(IDS[0])
    assert cordoned.without_cordons().healthy(IDS[0])


# -- what is kept -----------------------------------------------------------------------


def test_the_file_keeps_what_was_cordoned(tmp_path: Path) -> None:
    file = CordonFile(tmp_path / "state")
    assert file.read() == ()
    file.add(IDS[0], "two\nlines")
    file.add(CARD, "")
    assert CordonFile(tmp_path / "state").read() == (
        Cordon(IDS[0], "the command cordon", r"two\nlines"),
        Cordon(CARD, "the command cordon"),
    )
    assert file.remove(CARD)
    assert not file.remove(CARD)
    assert [cordon.target for cordon in file.read()] == [IDS[0]]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 2, "cordons": []}', '{"version": 1}', "[" * 10_000,
     '{"version": 1, "cordons": ["all"]}', '{"version": 1, "cordons": [{"id": "x"}]}'],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_an_error(tmp_path: Path, text: str) -> None:
    file = CordonFile(tmp_path)
    file.path.write_text(text)
    with pytest.raises(StateFileError, match=r"cordons\.json"):
        file.read()
    with pytest.raises(StateFileError):
        file.add(IDS[0], "")
    assert file.path.read_text() == text


# -- the commands -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPU_SIMULATE_CONTROL", str(tmp_path / "control"))


def reasons(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    capsys.readouterr()
    assert main(["devices", *NODE, "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    return {d["id"]: [r["message"] for r in d["reasons"]] for d in listed}


def test_a_cordon_by_command_is_seen_by_every_command(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cordon", *NODE, "36:00.0", "--reason", "memory errors"]) == 0
    assert "0000:36:00.0: cordoned\n" in capsys.readouterr().out
    assert reasons(capsys)["0000:36:00.0"] == ["by the command cordon: memory errors"]
    assert main(["uncordon", *NODE, "36:00.0"]) == 0
    assert not any(reasons(capsys).values())


def test_what_uncordon_cannot_end_is_said(
    state_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["uncordon", *NODE, IDS[0]]) == 1
    assert "was not cordoned" in capsys.readouterr().err
    monkeypatch.setenv("SPU_CORDON", CARD)
    assert main(["uncordon", *NODE, IDS[0]]) == 1
    assert f"{IDS[0]} is cordoned by the configuration" in capsys.readouterr().err


def test_a_cordon_of_a_device_that_is_not_there_is_kept_and_said(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cordon", *NODE, "99:00.0"]) == 0
    assert "0000:99:00.0 is not on this node now" in capsys.readouterr().err
    assert [cordon.target for cordon in CordonFile(state_dir).read()] == ["0000:99:00.0"]


@pytest.mark.parametrize("words", [["cordon", "chip1"], ["uncordon", "card-"], ["cordon", ","]])
def test_what_is_no_id_is_one_line(
    state_dir: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([*words, *NODE]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "such as 0000:36:00.0" in error
    assert not state_dir.exists()


def test_a_directory_that_cannot_be_written_is_one_line(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state_dir.write_text("a file")
    assert main(["cordon", *NODE, IDS[0]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(state_dir) in error


def test_a_simulated_node_has_its_own_cordons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPU_STATE_DIR")
    assert main(["cordon", *NODE, IDS[0]]) == 0
    assert [cordon.target for cordon in CordonFile(tmp_path).read()] == [IDS[0]]
