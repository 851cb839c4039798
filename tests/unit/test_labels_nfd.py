"""The file that NFD's worker reads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.labels.compute import ResourceFacts, labels_of
from moffett_device_plugin.labels.follow import follow_labels
from moffett_device_plugin.labels.nfd import FeatureFile
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.running import until
from tests.support.values import ids_of, snapshot_of, state_of

LABELS = {"moffett.ai/spu.present": "true", "moffett.ai/spu.count": "6"}


def read_as_nfd(folder: Path) -> dict[str, str]:
    """As NFD before 0.14 does, for which every line is a label."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        for line in path.read_text().split("\n"):
            if line:
                key, _, value = line.partition("=")
                found[key] = value
    return found


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def put(file: FeatureFile, labels: Mapping[str, str]) -> None:
    asyncio.run(file.put(labels))


def test_nfd_reads_the_labels_and_nothing_else(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "moffett-spu")
    assert file.write(LABELS)
    assert read_as_nfd(tmp_path) == LABELS
    assert (tmp_path / "moffett-spu").stat().st_mode & 0o777 == 0o644


def test_the_same_labels_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "moffett-spu"
    FeatureFile(path).write(LABELS)
    before = path.stat()
    assert not FeatureFile(path).write(LABELS)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "moffett-spu"
    FeatureFile(path).write(LABELS)
    with path.open() as reader:
        FeatureFile(path).write({**LABELS, "moffett.ai/spu.count": "3"})
        assert "count=6" in reader.read()
    assert "count=3" in path.read_text()


def test_no_labels_no_file(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "moffett-spu")
    file.write(LABELS)
    assert file.write({})
    assert list(tmp_path.iterdir()) == []
    assert not file.write({})


@pytest.mark.parametrize("trap", ["moffett-spu", ".moffett-spu.new"])
def test_symbolic_links_are_replaced_not_followed(tmp_path: Path, trap: str) -> None:
    folder, victim = tmp_path / "features.d", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    (folder / trap).symlink_to(victim)
    FeatureFile(folder / "moffett-spu").write(LABELS)
    assert victim.read_text() == "precious"
    assert not (folder / "moffett-spu").is_symlink()
    assert read_as_nfd(folder) == LABELS


def test_a_pipe_in_its_place_does_not_hang_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "moffett-spu")
    FeatureFile(tmp_path / "moffett-spu").write(LABELS)
    assert read_as_nfd(tmp_path) == LABELS


def test_what_a_killed_copy_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".moffett-spu.new").write_text("moffett.ai/spu.co")
    FeatureFile(tmp_path / "moffett-spu").write(LABELS)
    assert read_as_nfd(tmp_path) == LABELS


def test_a_missing_folder_is_told_once_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file = FeatureFile(tmp_path / "features.d" / "moffett-spu")
    put(file, LABELS)
    put(file, LABELS)
    assert told(caplog) == ["nfd-file-not-written"]
    assert "Node Feature Discovery" in caplog.records[0].__dict__["remedy"]
    (tmp_path / "features.d").mkdir()
    put(file, LABELS)
    put(file, LABELS)
    assert told(caplog) == ["nfd-file-not-written", "nfd-file-written"]
    assert read_as_nfd(tmp_path / "features.d") == LABELS


def test_a_full_disk_leaves_the_old_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = FeatureFile(tmp_path / "moffett-spu")
    file.write(LABELS)
    monkeypatch.setattr(os, "write", lambda fd, data: 3)
    put(file, {"moffett.ai/spu.present": "true"})
    assert read_as_nfd(tmp_path) == LABELS
    assert told(caplog) == ["nfd-file-not-written"]


class Sink:
    def __init__(self) -> None:
        self.puts: Watchable[list[Mapping[str, str]]] = Watchable([])

    async def put(self, labels: Mapping[str, str]) -> None:
        self.puts.set([*self.puts.value, labels])


def follow(
    state: Watchable[NodeState], sink: Sink, steps: list[NodeState], period: float = 1000
) -> None:
    """Lets the labels follow one state after the other."""

    async def run() -> None:
        task = asyncio.ensure_future(
            follow_labels(state, lambda: [ResourceFacts("moffett.ai/spu")], sink, period)
        )
        for number, step in enumerate(steps):
            state.set(step)
            await until(sink.puts, lambda wanted=number: len(sink.puts.value) > wanted)  # type: ignore[misc]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_labels_follow_the_node_from_its_first_settled_state_on() -> None:
    sink, one, two = Sink(), state_of("1xS30"), state_of("2xS30")
    follow(Watchable(NodeState()), sink, [one, two])
    assert [labels["moffett.ai/spu.count"] for labels in sink.puts.value] == ["3", "6"]


def test_what_only_mx_smi_knows_is_waited_for() -> None:
    async def run() -> None:
        sink, settled = Sink(), state_of("1xS30")
        state = Watchable(replace(settled, settled=False))
        task = asyncio.ensure_future(follow_labels(state, lambda: [], sink, 0.001))
        await asyncio.sleep(0.02)  # several looks
        assert sink.puts.value == []
        state.set(settled)
        await until(sink.puts, lambda: len(sink.puts.value) > 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_rebooting_card_changes_no_label() -> None:
    sink, up = Sink(), state_of("1xS4")
    (only,) = ids_of("1xS4")
    gone = snapshot_of("1xS4", Faults().with_fault(only, "gone"), up.snapshot)
    follow(Watchable(NodeState()), sink, [up, NodeState(gone, {}, settled=True)])
    assert sink.puts.value[0] == sink.puts.value[1] == labels_of(up, [ResourceFacts("x/y")])


def test_labels_are_looked_at_again_without_any_change() -> None:
    async def run() -> None:
        sink = Sink()
        state = Watchable(state_of("1xS4"))
        state.set(state.value)
        task = asyncio.ensure_future(follow_labels(state, lambda: [], sink, 0.01))
        await until(sink.puts, lambda: len(sink.puts.value) >= 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
