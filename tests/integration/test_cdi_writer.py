"""The spec follows the node, and comes back by itself whatever happens to its file."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin.cdi.directory import CdiDirectory, CdiError
from moffett_device_plugin.cdi.spec import Spec
from moffett_device_plugin.cdi.writer import SpecWriter
from moffett_device_plugin.deviceplugin import manager
from moffett_device_plugin.devices.inventory import Snapshot
from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.hardware.types import Mount
from moffett_device_plugin.resources.device_list_strategy import DeviceListStrategy
from moffett_device_plugin.resources.plugin_config import PluginConfig
from tests.support.running import on_a_loop, running, simulated, within
from tests.support.values import ids_of, snapshot_of

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
async def serving(directory: CdiDirectory, kubelet: Path) -> AsyncIterator[SimulatedNode]:
    """A daemon whose containers get their devices by CDI."""
    node = simulated()
    strategy = DeviceListStrategy(frozenset({"cdi-cri"}))
    async with running(kubelet) as it:
        it.start_plugin(
            node,
            plugin_config=PluginConfig(device_list_strategy=strategy),
            cdi_dir=directory.path,
        )
        yield node


async def eventually(condition: Callable[[], bool]) -> None:
    """A file is looked at from outside, as container engines do: there is no event."""

    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await within(wait(), "such file")


@on_a_loop
async def test_the_file_follows_the_node_and_stays_at_the_end(
    directory: CdiDirectory, short_dir: Path
) -> None:
    async with serving(directory, short_dir) as node:
        await eventually(lambda: directory.file.exists() and IDS[0] in names(directory))
        node.set(GONE)
        await eventually(lambda: IDS[0] not in names(directory))
        node.set(Faults())
        await eventually(lambda: IDS[0] in names(directory))
    assert IDS[0] in names(directory), "containers that are restarted need it"


def test_a_predecessors_file_stays_until_somebody_has_looked(directory: CdiDirectory) -> None:
    SpecWriter(directory).ensure(snapshot_of("2xS30"))
    successor = SpecWriter(directory)
    assert not successor.ensure(Snapshot())
    assert IDS[0] in names(directory)
    before = directory.identity()
    assert successor.ensure(snapshot_of("2xS30"))
    assert directory.identity() == before


def test_a_node_whose_devices_all_left_has_no_file(directory: CdiDirectory) -> None:
    writer = SpecWriter(directory)
    writer.ensure(before := snapshot_of("1xS4"))
    gone = Faults().with_fault(before.devices[0].id, "gone")
    assert writer.ensure(snapshot_of("1xS4", gone, before))
    assert not directory.file.exists()


def test_the_file_is_left_alone_while_nothing_of_it_changes(
    directory: CdiDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    writer = SpecWriter(directory)
    writer.ensure(snapshot_of("2xS30"))
    before = directory.identity()
    for fault in ("ecc", "hot", "warm", "corrected"):
        writer.ensure(snapshot_of("2xS30", Faults().with_fault(IDS[0], fault)))
    assert directory.identity() == before
    assert events(caplog) == ["cdi-spec-written"]


@pytest.mark.parametrize("harm", ["removed", "damaged", "linked"])
def test_a_file_that_was_lost_comes_back_without_an_event(
    directory: CdiDirectory,
    short_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
) -> None:
    monkeypatch.setattr(manager, "CDI_PERIOD", 0.01)

    async def scenario() -> None:
        async with serving(directory, short_dir):
            await eventually(directory.file.exists)
            right = directory.file.read_text()
            if harm == "damaged":
                directory.file.write_text("{}")
            else:
                directory.file.unlink()
            if harm == "linked":
                directory.file.symlink_to(tmp_path / "elsewhere")
            await eventually(
                lambda: (
                    not directory.file.is_symlink()
                    and directory.file.exists()
                    and directory.file.read_text() == right
                )
            )

    asyncio.run(scenario())


def test_an_error_is_logged_once_and_is_over_by_itself(
    directory: CdiDirectory,
    short_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(manager, "CDI_PERIOD", 0.01)
    caplog.set_level(logging.INFO)
    directory.path.write_text("in the way")

    async def scenario() -> None:
        async with serving(directory, short_dir):
            await eventually(lambda: "cdi-unavailable" in events(caplog))
            await asyncio.sleep(0.05)  # it is tried again a few times
            directory.path.unlink()
            await eventually(lambda: "cdi-spec-written" in events(caplog))
        told = [event for event in events(caplog) if event.startswith("cdi-")]
        assert told == ["cdi-unavailable", "cdi-spec-written"]
        assert IDS[0] in names(directory)

    asyncio.run(scenario())


def test_trouble_is_over_when_what_is_in_force_is_right_again(
    directory: CdiDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpecWriter(directory)
    before = snapshot_of("2xS30")
    assert writer.ensure(before)

    def refuse(spec: Spec) -> bool:
        raise CdiError("read-only file system")

    with monkeypatch.context() as broken:
        broken.setattr(directory, "write", refuse)
        assert not writer.ensure(snapshot_of("2xS30", GONE, before))
    assert writer.ensure(before)
    assert writer.in_force(before)


def test_a_new_installation_is_mounted_from_its_new_place(directory: CdiDirectory) -> None:
    installed = Mount("/usr/local/sola-3.5.3", "/usr/local/sola")
    mounts = [installed]
    writer = SpecWriter(directory, lambda: mounts)
    writer.ensure(snapshot_of("2xS30"))
    mounts[:] = [replace(installed, host_path="/usr/local/sola-3.6.0")]
    writer.ensure(snapshot_of("2xS30"))
    told = json.loads(directory.file.read_text())["containerEdits"]["mounts"]
    assert [mount["hostPath"] for mount in told] == ["/usr/local/sola-3.6.0"]
