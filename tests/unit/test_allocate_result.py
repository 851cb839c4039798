"""What a container gets with its devices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moffett_device_plugin.allocation.allocate_result import (
    RefusalError,
    UnknownDeviceError,
    build_allocate_result,
)
from moffett_device_plugin.allocation.allocator import PoolAllocator
from moffett_device_plugin.allocation.placement import PlacementError
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.hardware.types import DeviceNode
from moffett_device_plugin.resources.pools import build_pools
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.values import ids_of, state_of

IDS = ids_of("2xS30")


def test_nodes_and_environment_name_the_devices_in_bus_order() -> None:
    granted = build_allocate_result([IDS[4], IDS[1]], state_of("2xS30"))
    assert [node.container_path for node in granted.nodes] == ["/dev/spu-sim1", "/dev/spu-sim4"]
    envs = {
        "MOFFETT_SPU_IDS": f"{IDS[1]},{IDS[4]}",
        "MOFFETT_SPU_INDEXES": "1,4",
        "MOFFETT_SPU_BUS_IDS": f"{IDS[1]},{IDS[4]}",
    }
    named = {f"{name}_MOFFETT_AI_SPU": value for name, value in envs.items()}
    assert granted.envs == {**envs, **named}


def test_two_resources_of_one_container_have_variables_of_their_own() -> None:
    """Of a variable that both answers set, kubelets keep one value."""
    one = build_allocate_result([IDS[0]], state_of("2xS30"), resource="moffett.ai/spu")
    other = build_allocate_result([IDS[4]], state_of("2xS30"), resource="moffett.ai/spu.shared")
    envs = {**one.envs, **other.envs}
    assert envs["MOFFETT_SPU_IDS_MOFFETT_AI_SPU"] == IDS[0]
    assert envs["MOFFETT_SPU_IDS_MOFFETT_AI_SPU_SHARED"] == IDS[4]


def test_control_nodes_are_given_once() -> None:
    state = state_of("2xS30")
    control = DeviceNode("/dev/spuctl", "/dev/spuctl")
    state = replace(state, snapshot=replace(state.snapshot, control_nodes=(control,)))
    assert build_allocate_result(IDS[:3], state).nodes.count(control) == 1


def test_an_unhealthy_device_is_refused_with_its_reason() -> None:
    state = state_of("2xS30", Faults().with_fault(IDS[1], "ecc"))
    with pytest.raises(RefusalError, match=rf"{IDS[1]} is unhealthy: ecc-uncorrected \(1 unc"):
        build_allocate_result(IDS[:2], state)


def test_an_unknown_device_is_refused_by_name() -> None:
    with pytest.raises(UnknownDeviceError, match=r"0000:99:00\.0"):
        build_allocate_result([IDS[0], "0000:99:00.0"], state_of("2xS30"))


def test_the_preferred_devices_are_never_sick_ones() -> None:
    state = Watchable(state_of("2xS30", Faults().with_fault(IDS[0], "hot")))
    ((pool,), _) = build_pools(state.value)
    allocator = PoolAllocator(state, lambda: pool)
    assert allocator.prefer([*IDS, "ghost"], [], 2) == (IDS[1], IDS[2])
    with pytest.raises(PlacementError, match=f"{IDS[0]} must be in; device {IDS[0]} is unheal"):
        allocator.prefer(IDS, [IDS[0]], 2)


def test_a_sick_device_stays_on_the_list() -> None:
    ((pool,), _) = build_pools(state_of("2xS30", Faults().with_fault(IDS[0], "hot")))
    advertised = pool.advertised()
    assert [device.id for device in advertised] == IDS
    assert [device.healthy for device in advertised] == [False] + [True] * 5
    assert [device.numa_node for device in advertised] == [0, 0, 0, 1, 1, 1]
