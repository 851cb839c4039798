"""An operator takes devices out of service while the plugin runs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin.devices.cordon_file import CordonFile
from moffett_device_plugin.devices.fault_record import FaultFile
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.resources.plugin_config import PluginConfig, PluginOptions
from moffett_device_plugin.runtime.file_changes import file_changes
from moffett_device_plugin.settings.settings import ServeSettings
from tests.integration.test_delivery import pre_start
from tests.support.running import RESOURCE, on_a_loop, running, settings_for, simulated, until
from tests.support.values import ids_of

IDS = ids_of("2xS30")
CARD = "card-0000:34:00.0"


def settings_with(directory: Path, *targets: str) -> ServeSettings:
    return replace(settings_for(directory), cordon=targets)


def file_of(directory: Path) -> CordonFile:
    return CordonFile(settings_for(directory).state_dir)


@on_a_loop
async def test_the_kubelet_does_not_count_what_is_cordoned_and_pods_keep_it(
    short_dir: Path,
) -> None:
    async with running(short_dir) as it:
        options = PluginConfig(options=PluginOptions(pre_start=True))
        it.start_plugin(simulated(), plugin_config=options)
        await it.allocatable(6)
        pod = await it.kubelet.admit("a", RESOURCE, 1)
        file_of(short_dir).add(pod.device_ids[0], "memory errors")
        await it.allocatable(5)
        await pre_start(it, pod)  # its container may start anew
        file_of(short_dir).add(CARD, "")
        await it.allocatable(3)
        file_of(short_dir).remove(CARD)
        await it.allocatable(5)
        file_of(short_dir).remove(pod.device_ids[0])
        await it.allocatable(6)


@on_a_loop
async def test_a_cordon_is_there_before_the_first_list(short_dir: Path) -> None:
    file_of(short_dir).add(CARD, "")
    async with running(short_dir) as it:
        daemon = it.start_plugin(simulated())
        await it.allocatable(3)
        daemon.apply(settings_with(short_dir, IDS[3]))
        await it.allocatable(2)
        daemon.apply(settings_with(short_dir))
        await it.allocatable(3)


@on_a_loop
async def test_while_the_file_is_damaged_its_cordons_stay(
    short_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_of(short_dir)
    file.add(CARD, "")
    async with running(short_dir) as it:
        daemon = it.start_plugin(simulated())
        await it.allocatable(3)
        good = file.path.read_text()
        file.path.write_text("{")
        daemon.cordons.read()
        assert "cordons-not-read" in caplog.text
        await it.allocatable(3)
        file.path.write_text(good.replace(CARD, IDS[0]))
        await it.allocatable(5)


@on_a_loop
async def test_nothing_is_offered_while_what_is_cordoned_was_never_known(short_dir: Path) -> None:
    file = file_of(short_dir)
    file.folder.mkdir()
    file.path.write_text("{")
    async with running(short_dir) as it:
        it.start_plugin(simulated())
        await it.until(lambda: it.kubelet.capacity(RESOURCE) == 6)
        await it.allocatable(0)
        file.path.unlink()
        await it.allocatable(6)


# -- a device that flaps ----------------------------------------------------------------


@on_a_loop
async def test_a_flapping_device_stays_out_over_a_restart_until_it_is_uncordoned(
    short_dir: Path,
) -> None:
    health = HealthPolicy(recovery_seconds=0.05, flapping_seconds=(3600.0,))
    faults = FaultFile(settings_for(short_dir).state_dir)
    async with running(short_dir) as it:
        node = simulated()
        daemon = it.start_plugin(node, health=health)
        await it.allocatable(6)
        for count in (6, 5):  # after the first fault, and not after the second
            node.set(node.faults.with_fault(IDS[0], "config"))
            await it.allocatable(5)
            node.set(Faults())
            await it.allocatable(count)
        await until(
            daemon.monitor.state,
            lambda: daemon.monitor.state.value.health_statuses[IDS[0]].codes == {"flapping"},
        )
        async for _ in file_changes(faults.path):
            (record,) = faults.read(0.0, time.time())
            if record.faults.count == 2 and record.since is not None:
                break
        await it.stop_plugin(daemon)
        daemon = it.start_plugin(node, health=health)
        await it.allocatable(5)
        assert daemon.monitor.state.value.health_statuses[IDS[0]].codes == {"flapping"}
        assert faults.forget([IDS[0]])
        await it.allocatable(6)


@on_a_loop
async def test_after_one_fault_a_device_that_is_well_at_the_start_is_offered_at_once(
    short_dir: Path,
) -> None:
    health = HealthPolicy(recovery_seconds=3600.0, flapping_seconds=(7200.0,))
    async with running(short_dir) as it:
        node = simulated()
        daemon = it.start_plugin(node, health=health)
        await it.allocatable(6)
        node.set(node.faults.with_fault(IDS[0], "config"))
        await it.allocatable(5)
        async for _ in file_changes(FaultFile(settings_for(short_dir).state_dir).path):
            if FaultFile(settings_for(short_dir).state_dir).read(0.0, time.time()):
                break
        await it.stop_plugin(daemon)
        node.set(Faults())
        it.start_plugin(node, health=health)
        await it.allocatable(6)
