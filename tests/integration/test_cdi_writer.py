"""The spec follows the node, and comes back by itself whatever happens to its file."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin.cdi import writer as keeper_module
from moffett_device_plugin.cdi.directory import CdiDirectory, CdiError
from moffett_device_plugin.cdi.spec import Spec
from moffett_device_plugin.cdi.writer import SpecWriter
from moffett_device_plugin.devices.inventory import Snapshot
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.hardware.types import Mount
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.running import until, within
from tests.support.values import ids_of, snapshot_of, state_of

IDS = ids_of("2xS30")
GONE = Faults().with_fault(IDS[0], "gone")


@pytest.fixture
def directory(tmp_path: Path) -> CdiDirectory:
    return CdiDirectory(tmp_path / "cdi")


def names(directory: CdiDirectory) -> list[str]:
    return [device["name"] for device in json.loads(directory.file.read_text())["devices"]]


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@asynccontextmanager
async def following(
    directory: CdiDirectory, state: Watchable[NodeState]
) -> AsyncIterator[SpecWriter]:
    keeper = SpecWriter(directory)
    task = asyncio.create_task(keeper.run(state))
    try:
        yield keeper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def seen(state: Watchable[NodeState], value: NodeState) -> None:
    """Publishes, and returns when everybody who waits has looked."""
    state.set(value)
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_file_follows_the_node_and_stays_at_the_end(directory: CdiDirectory) -> None:
    async def scenario() -> None:
        state: Watchable[NodeState] = Watchable(NodeState())
        async with following(directory, state) as keeper:
            await seen(state, state_of("2xS30"))
            assert IDS[0] in names(directory)
            assert keeper.ready.value
            await seen(state, NodeState(snapshot_of("2xS30", GONE, state.value.snapshot)))
            assert IDS[0] not in names(directory)
            await seen(state, NodeState(snapshot_of("2xS30", before=state.value.snapshot)))
            assert IDS[0] in names(directory)
        assert IDS[0] in names(directory), "containers that are restarted need it"

    asyncio.run(scenario())


def test_a_predecessors_file_stays_until_somebody_has_looked(directory: CdiDirectory) -> None:
    SpecWriter(directory).ensure(snapshot_of("2xS30"))
    successor = SpecWriter(directory)
    assert not successor.ensure(Snapshot())
    assert IDS[0] in names(directory)
    before = directory.identity()
    assert successor.ensure(snapshot_of("2xS30"))
    assert directory.identity() == before


def test_a_node_whose_devices_all_left_has_no_file(directory: CdiDirectory) -> None:
    keeper = SpecWriter(directory)
    keeper.ensure(before := snapshot_of("1xS4"))
    gone = Faults().with_fault(before.devices[0].id, "gone")
    assert keeper.ensure(snapshot_of("1xS4", gone, before))
    assert not directory.file.exists()


def test_the_file_is_left_alone_while_nothing_of_it_changes(
    directory: CdiDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keeper = SpecWriter(directory)
    keeper.ensure(snapshot_of("2xS30"))
    before = directory.identity()
    for fault in ("ecc", "hot", "warm", "corrected"):
        keeper.ensure(snapshot_of("2xS30", Faults().with_fault(IDS[0], fault)))
    assert directory.identity() == before
    assert events(caplog) == ["cdi-spec-written"]


@pytest.mark.parametrize("harm", ["removed", "damaged", "linked"])
def test_a_file_that_was_lost_comes_back_without_any_news(
    directory: CdiDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(keeper_module, "SAFETY_PERIOD", 0.01)

    async def scenario() -> None:
        state: Watchable[NodeState] = Watchable(state_of("2xS30"))
        async with following(directory, state):
            await seen(state, state.value)
            right = directory.file.read_text()
            if harm == "damaged":
                directory.file.write_text("{}")
            else:
                directory.file.unlink()
            if harm == "linked":
                directory.file.symlink_to(tmp_path / "elsewhere")

            async def mended() -> None:
                while directory.file.is_symlink() or not directory.file.exists():
                    await asyncio.sleep(0.005)
                while directory.file.read_text() != right:
                    await asyncio.sleep(0.005)

            await within(mended(), "spec")

    asyncio.run(scenario())


def test_trouble_is_told_once_and_is_over_by_itself(
    directory: CdiDirectory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(keeper_module, "SAFETY_PERIOD", 0.01)
    caplog.set_level(logging.INFO)
    directory.path.write_text("in the way")

    async def scenario() -> None:
        state: Watchable[NodeState] = Watchable(state_of("2xS30"))
        async with following(directory, state) as keeper:
            for _ in range(3):
                await seen(state, state.value)
            assert not keeper.ready.value
            assert not keeper.ensure(state.value.snapshot)
            assert events(caplog) == ["cdi-unavailable"]
            directory.path.unlink()
            await until(keeper.ready, lambda: keeper.ready.value)
        assert events(caplog) == ["cdi-unavailable", "cdi-spec-written"]
        assert IDS[0] in names(directory)

    asyncio.run(scenario())


def test_trouble_is_over_when_what_is_in_force_is_right_again(
    directory: CdiDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = SpecWriter(directory)
    before = snapshot_of("2xS30")
    assert keeper.ensure(before)

    def refuse(spec: Spec) -> bool:
        raise CdiError("read-only file system")

    with monkeypatch.context() as broken:
        broken.setattr(directory, "write", refuse)
        assert not keeper.ensure(snapshot_of("2xS30", GONE, before))
    assert keeper.ensure(before)
    assert keeper.ready.value


def test_a_new_installation_is_mounted_from_its_new_place(directory: CdiDirectory) -> None:
    installed = Mount("/usr/local/sola-3.5.3", "/usr/local/sola")
    mounts = [installed]
    keeper = SpecWriter(directory, lambda: mounts)
    keeper.ensure(snapshot_of("2xS30"))
    mounts[:] = [replace(installed, host_path="/usr/local/sola-3.6.0")]
    keeper.ensure(snapshot_of("2xS30"))
    told = json.loads(directory.file.read_text())["containerEdits"]["mounts"]
    assert [mount["hostPath"] for mount in told] == ["/usr/local/sola-3.6.0"]
