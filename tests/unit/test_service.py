"""What the kubelet is answered."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from moffett_device_plugin import api
from moffett_device_plugin.allocation.allocator import PoolAllocator
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.deviceplugin.service import DevicePluginService
from moffett_device_plugin.grpc.server import Unary
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.resources.plugin_config import PluginSpec
from moffett_device_plugin.resources.pools import build_pools
from moffett_device_plugin.runtime.counters import ResourceCounters
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.values import ids_of, state_of

IDS = ids_of("2xS30")


class Broken(PoolAllocator):
    def prefer(
        self, available: Sequence[str], must_include: Sequence[str], size: int
    ) -> Sequence[str]:
        raise ZeroDivisionError("a defect")


def service(
    kind: type[PoolAllocator] = PoolAllocator, faults: Faults | None = None
) -> tuple[DevicePluginService, ResourceCounters]:
    state = state_of("2xS30", faults)
    ((pool,), _) = build_pools(state)
    counters = ResourceCounters()
    allocator = kind(Watchable(state), lambda: pool)
    spec = Watchable(PluginSpec(pool, pool.advertised()))
    return DevicePluginService(spec, allocator, counters), counters  # type: ignore[arg-type]


def preferred(
    served: DevicePluginService, available: Sequence[str], must: Sequence[str], size: int
) -> list[str]:
    request = pb.PreferredAllocationRequest()
    request.container_requests.add(
        available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
    )
    method = served.methods()[api.GET_PREFERRED_ALLOCATION]
    assert isinstance(method, Unary)
    answer = method.answer(request.SerializeToString())
    assert isinstance(answer, bytes)
    return list(pb.PreferredAllocationResponse.FromString(answer).container_responses[0].deviceIDs)


@pytest.mark.parametrize(
    ("available", "must", "size", "answer"),
    [
        (IDS[2::-1], [], 5, IDS[:3]),  # more than there are
        (IDS[1:4], [IDS[1]], 2, [IDS[1], IDS[2]]),  # one that must be in is unhealthy
        (IDS, IDS[1:3], 1, IDS[1:3]),  # more must be in than were asked for
        ([IDS[1]], [], 1, [IDS[1]]),  # the only one is unhealthy: Allocate says so
    ],
)
def test_a_preference_that_cannot_be_met_does_not_fail_the_pod(
    available: list[str],
    must: list[str],
    size: int,
    answer: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    served, counters = service(faults=Faults().with_fault(IDS[1], "hot"))
    assert preferred(served, available, must, size) == answer
    (record,) = caplog.records
    assert record.getMessage() == "placement-failed"
    assert record.why  # type: ignore[attr-defined]
    assert counters.placement_rejections == 1


def test_a_defect_of_the_placement_does_not_fail_the_pod(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    served, counters = service(Broken)
    assert preferred(served, IDS[::-1], [IDS[4]], 3) == [IDS[4], *IDS[:2]]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError, "the log has all there is to know"
    assert counters.placement_rejections == 1


def test_a_preference_that_can_be_met_is_not_logged_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    served, counters = service()
    assert preferred(served, IDS, [], 2) == IDS[:2]
    assert not caplog.records
    assert counters.placement_rejections == 0
