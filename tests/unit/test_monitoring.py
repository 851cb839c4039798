"""The monitoring resource: who has it reaches every device, and holds none."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from moffett_device_plugin.allocation.allocate_result import UnknownDeviceError
from moffett_device_plugin.allocation.monitoring import MonitoringAllocator
from moffett_device_plugin.deviceplugin.manager import Inputs, wanted_plugins
from moffett_device_plugin.devices.health.reasons import HealthStatus
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.types import DeviceNode
from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.resources.device_ids import DeviceIds
from moffett_device_plugin.resources.monitoring import monitoring_pool
from moffett_device_plugin.resources.plugin_config import Monitoring, PluginConfig
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.runtime.watchable import Watchable
from moffett_device_plugin.settings.options import Values
from moffett_device_plugin.settings.settings import plugin_config
from tests.support.values import ids_of, state_of

CONTROL = DeviceNode("/dev/spu-ctl", "/dev/spu-ctl")
MONITORING = PluginConfig(monitoring=Monitoring(units=2))
NAME = "moffett.ai/spu-monitoring"


def with_nodes(state: NodeState) -> NodeState:
    devices = tuple(
        replace(
            device,
            function=replace(
                device.function,
                nodes=(DeviceNode(f"/dev/spu{device.index}", f"/dev/spu{device.index}"),),
            ),
        )
        for device in state.snapshot.devices
    )
    return replace(
        state, snapshot=replace(state.snapshot, devices=devices, control_nodes=(CONTROL,))
    )


STATE = with_nodes(state_of("1xS30"))


def settings(**variables: str) -> PluginConfig:
    return plugin_config(Values(argparse.Namespace(), variables))


def test_it_is_not_there_unless_asked_for() -> None:
    assert [pool.name for pool in wanted_plugins(Inputs(STATE)).pools] == ["moffett.ai/spu"]
    assert settings().monitoring is None
    assert settings(SPU_MONITORING_UNITS="3").monitoring == Monitoring(NAME, 3)


def test_it_has_its_units_beside_the_devices() -> None:
    spus, monitoring = wanted_plugins(Inputs(STATE, MONITORING)).pools
    assert len(spus.devices) == 3
    assert [unit.id for unit in monitoring.advertised()] == ["monitoring-0", "monitoring-1"]


def test_it_waits_for_device_nodes() -> None:
    devices = STATE.snapshot.devices
    without = tuple(replace(d, function=replace(d.function, nodes=())) for d in devices)
    early = replace(STATE, snapshot=replace(STATE.snapshot, devices=without))
    assert monitoring_pool(early, Monitoring()) is None


def test_a_unit_gives_every_node_also_those_of_sick_devices_and_no_variable() -> None:
    sick = {device_id: HealthStatus(False) for device_id in ids_of("1xS30")}
    pool = monitoring_pool(STATE, Monitoring())
    assert pool is not None
    allocator = MonitoringAllocator(Watchable(replace(STATE, health_statuses=sick)), lambda: pool)
    given = allocator.allocate(["monitoring-0"])
    paths = [node.host_path for node in given.nodes]
    assert paths == ["/dev/spu0", "/dev/spu1", "/dev/spu2", "/dev/spu-ctl"]
    assert given.envs == {}
    with pytest.raises(UnknownDeviceError, match="monitoring-1"):
        allocator.allocate(["monitoring-1"])


def test_its_holder_holds_no_device() -> None:
    held = {NAME: {"monitoring-0": (Holder("kube-system", "exporter", "main"),)}}
    spus, monitoring = wanted_plugins(Inputs(STATE, MONITORING, held)).pools
    assert all(device.healthy for device in (*spus.devices, *monitoring.devices))
    assert DeviceIds(STATE.snapshot.devices).holders(held) == {}


def test_a_name_that_devices_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"moffett\.ai/spu.*use another one"):
        settings(SPU_MONITORING_UNITS="1", SPU_MONITORING_RESOURCE_NAME="moffett.ai/spu")
