"""What a pod holds in one form is not given out in another."""

from __future__ import annotations

import pytest

from moffett_device_plugin.allocation.allocate_result import RefusalError
from moffett_device_plugin.allocation.allocator import PoolAllocator
from moffett_device_plugin.podresources.client import Holder, Holders
from moffett_device_plugin.resources.conflicts import mark_conflicts
from moffett_device_plugin.resources.device_ids import DeviceIds
from moffett_device_plugin.resources.pools import Resource, ResourcePool, Sharing, build_pools
from moffett_device_plugin.runtime.watchable import Watchable

from ..support.values import state_of

A0, CARD_A, CARD_B = "0000:36:00.0", "card-0000:34:00.0", "card-0000:b4:00.0"
STATE = state_of("2xS30")
DEVICES = Resource()
CARDS = Resource("moffett.ai/spu-card", granularity="card")
SHARED = Resource("moffett.ai/spu.shared", sharing=Sharing(2))


def held(name: str, unit_id: str) -> Holders:
    return {name: {unit_id: (Holder("default", "train", "main"),)}}


def offered(resource: Resource, holders: Holders) -> ResourcePool:
    ((pool,), _) = build_pools(STATE, (resource,))
    return mark_conflicts(pool, holders, DeviceIds(STATE.snapshot.devices))


def unhealthy(resource: Resource, holders: Holders) -> list[str]:
    return [unit.id for unit in offered(resource, holders).advertised() if not unit.healthy]


def test_a_card_with_a_chip_that_a_pod_has_is_held_back() -> None:
    assert unhealthy(CARDS, held("moffett.ai/spu", A0)) == [CARD_A]


def test_the_chips_of_a_card_that_a_pod_has_are_held_back() -> None:
    chips = ["0000:b6:00.0", "0000:b7:00.0", "0000:b8:00.0"]
    assert unhealthy(DEVICES, held("moffett.ai/spu-card", CARD_B)) == chips


def test_what_the_kubelet_counts_itself_stays_healthy() -> None:
    assert unhealthy(DEVICES, held("moffett.ai/spu", A0)) == []
    assert unhealthy(CARDS, held("moffett.ai/spu-card", CARD_A)) == []
    assert unhealthy(SHARED, held("moffett.ai/spu.shared", f"{A0}::1")) == []


def test_an_exclusive_holder_is_not_made_to_share_and_a_sharer_not_made_exclusive() -> None:
    assert unhealthy(SHARED, held("moffett.ai/spu", A0)) == [f"{A0}::0", f"{A0}::1"]
    assert unhealthy(DEVICES, held("moffett.ai/spu.shared", f"{A0}::1")) == [A0]
    assert unhealthy(SHARED, held("example.com/other.shared", f"{A0}::7")) == []


def test_a_name_that_stays_with_units_that_do_not() -> None:
    same_name = Resource("moffett.ai/spu", granularity="card")
    assert unhealthy(same_name, held("moffett.ai/spu", A0)) == [CARD_A]
    shared = Resource("moffett.ai/spu", sharing=Sharing(2))
    assert unhealthy(shared, held("moffett.ai/spu", A0)) == [f"{A0}::0", f"{A0}::1"]


def test_other_vendors_devices_hold_nothing_of_ours() -> None:
    assert unhealthy(DEVICES, held("example.com/nic", "0000:99:00.0")) == []


def test_a_held_unit_is_refused_and_says_who_has_it() -> None:
    pool = offered(CARDS, held("moffett.ai/spu", A0))
    allocator = PoolAllocator(Watchable(STATE), lambda: pool)
    assert allocator.prefer([CARD_A, CARD_B], [], 1) == (CARD_B,)
    with pytest.raises(RefusalError, match=f"{A0} is held by pod default/train as moffett.ai/spu"):
        allocator.allocate([CARD_A])
