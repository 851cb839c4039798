"""What a node is divided into: names, units, and which devices are in which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moffett_device_plugin.allocation.allocate_result import RefusalError, UnknownDeviceError
from moffett_device_plugin.allocation.allocator import PoolAllocator
from moffett_device_plugin.allocation.placement import PlacementError, place
from moffett_device_plugin.allocation.replicas import place_replicas
from moffett_device_plugin.allocation.topology import build_tree
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.resources.device_ids import strip_replica
from moffett_device_plugin.resources.pools import (
    Resource,
    ResourcePool,
    Sharing,
    build_pools,
    check_disjoint,
    check_resource_name,
)
from moffett_device_plugin.resources.selector import Selector
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.runtime.watchable import Watchable

from ..support.values import state_of

A = ["0000:36:00.0", "0000:37:00.0", "0000:38:00.0"]  # the first card
B = ["0000:b6:00.0", "0000:b7:00.0", "0000:b8:00.0"]
CARD_A, CARD_B = "card-0000:34:00.0", "card-0000:b4:00.0"
CARDS = Resource("moffett.ai/spu-card", granularity="card")


def the_only_pool(state: NodeState, resource: Resource) -> ResourcePool:
    (pool,), unassigned = build_pools(state, (resource,))
    assert unassigned == ()
    return pool


def allocator_of(state: NodeState, resource: Resource) -> PoolAllocator:
    pool = the_only_pool(state, resource)
    return PoolAllocator(Watchable(state), lambda: pool)


def products(*names: str) -> Selector:
    return Selector(products=frozenset(names))


# -- whole cards ----------------------------------------------------------------------


def test_a_card_is_one_unit_on_its_numa_node() -> None:
    units = the_only_pool(state_of("2xS30"), CARDS).advertised()
    assert [(unit.id, unit.healthy, unit.numa_node) for unit in units] == [
        (CARD_A, True, 0),
        (CARD_B, True, 1),
    ]
    assert [list(unit.device_ids) for unit in units] == [A, B]


def test_a_card_with_a_sick_chip_is_unhealthy_and_says_which() -> None:
    state = state_of("2xS30", Faults().with_fault(B[1], "hot"))
    assert [unit.healthy for unit in the_only_pool(state, CARDS).advertised()] == [True, False]
    allocator = allocator_of(state, CARDS)
    assert allocator.prefer([CARD_A, CARD_B], [], 1) == (CARD_A,)
    with pytest.raises(PlacementError, match=f"device {B[1]} is unhealthy: over-temperature"):
        allocator.prefer([CARD_A, CARD_B], [], 2)
    with pytest.raises(RefusalError, match=f"device {B[1]} is unhealthy: over-temperature"):
        allocator.allocate([CARD_B])


def test_a_card_brings_all_its_chips() -> None:
    granted = allocator_of(state_of("2xS30"), CARDS).allocate([CARD_B])
    assert granted.envs["MOFFETT_SPU_IDS"].split(",") == B


def test_cards_near_each_other_are_preferred() -> None:
    state = state_of("8xS30")
    pool = the_only_pool(state, CARDS)
    nodes = {unit.id: unit.numa_node for unit in pool.advertised()}
    ids = list(nodes)
    chosen = allocator_of(state, CARDS).prefer(ids[:1] + ids[-4:], [], 2)
    assert {nodes[i] for i in chosen} == {nodes[ids[-1]]}, "two on one NUMA node, not across"


def test_a_device_is_no_unit_of_a_resource_of_cards() -> None:
    with pytest.raises(UnknownDeviceError, match=A[0]):
        allocator_of(state_of("2xS30"), CARDS).allocate([A[0]])


# -- several resources over disjoint devices --------------------------------------------


def test_devices_and_cards_side_by_side() -> None:
    here = Selector(numa_nodes=frozenset({"0"}))
    resources = (
        Resource(select=here),
        Resource("moffett.ai/spu-card", granularity="card", exclude=here),
    )
    pools, unassigned = build_pools(state_of("2xS30"), resources)
    found = {d.name: [unit.id for unit in d.advertised()] for d in pools}
    assert found == {"moffett.ai/spu": A, "moffett.ai/spu-card": [CARD_B]}
    assert unassigned == ()


def test_half_a_card_is_no_card_and_is_told() -> None:
    half = Resource(
        "moffett.ai/spu-card", granularity="card", select=Selector(bus_ids=frozenset(A[:2]))
    )
    pools, (unassigned,) = build_pools(state_of("2xS30"), (half,))
    assert pools == ()
    assert unassigned.device_ids == tuple(A[:2])
    assert "only some chips of card-0000:34:00.0" in unassigned.why


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Resource("x.io/a"), Resource("x.io/b")),
        (Resource("x.io/a", select=products("s30")), Resource("x.io/b")),
        (
            Resource("x.io/a", select=products("s30", "s4")),
            Resource("x.io/b", select=products("s4", "s10")),
        ),
        (
            Resource("x.io/a", select=products("s30")),
            Resource("x.io/b", select=Selector(numa_nodes=frozenset({"1"}))),
        ),
    ],
)
def test_resources_that_could_share_a_device_are_refused_as_a_pair(
    one: Resource, other: Resource
) -> None:
    with pytest.raises(ConfigurationError, match=r"second: 'x.io/b'.* in first \(x.io/a\)"):
        check_disjoint((one, other), ["first", "second"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Selector(products=frozenset({"s30"})), Selector(products=frozenset({"s4", "s10"}))),
        (Selector(numa_nodes=frozenset({"0"})), Selector(numa_nodes=frozenset({"1"}))),
    ],
)
def test_resources_that_can_share_no_device_are_accepted(one: Selector, other: Selector) -> None:
    check_disjoint((Resource("x.io/a", select=one), Resource("x.io/b", select=other)), ["1", "2"])
    the_rest = Resource("x.io/b", exclude=one)
    check_disjoint((Resource("x.io/a", select=one), the_rest), ["1", "2"])


_VALUES: Mapping[str, tuple[str, ...]] = {
    "products": ("s30", "s4"),
    "numa_nodes": ("0", "1"),
    "indexes": ("0", "1", "2", "3"),
    "bus_ids": (*A, *B),
}
_SELECTORS = st.builds(
    Selector, **{key: st.frozensets(st.sampled_from(values)) for key, values in _VALUES.items()}
)
_RESOURCES = st.builds(
    Resource,
    name=st.just("x.io/a"),
    select=_SELECTORS,
    exclude=_SELECTORS,
    granularity=st.sampled_from(("device", "card")),
)


@settings(deadline=None)
@given(one=_RESOURCES, other=_RESOURCES)
def test_what_is_accepted_never_shares_a_device(one: Resource, other: Resource) -> None:
    other = Resource("x.io/b", "x.io", other.granularity, other.select, other.exclude)
    try:
        check_disjoint((one, other), ["1", "2"])
    except ConfigurationError:
        return
    pools, _ = build_pools(state_of("1xS30,2xS4,1xS30"), (one, other))
    seen = [device for d in pools for unit in d.devices for device in unit.device_ids]
    assert len(seen) == len(set(seen))


def without_mx_smi(spec: str) -> NodeState:
    """A node on which nobody has told serial numbers yet."""
    state = state_of(spec)
    devices = tuple(replace(device, serial=None) for device in state.snapshot.devices)
    return replace(state, snapshot=replace(state.snapshot, devices=devices))


SERIAL = state_of("2xS30").snapshot.devices[0].serial or ""
BY_SERIAL = Selector(serials=frozenset({SERIAL}))


@pytest.mark.parametrize("granularity", ["device", "card"])
def test_an_exclusion_by_what_is_not_known_keeps_everything_out(granularity: str) -> None:
    resource = Resource("x.io/a", granularity=granularity, exclude=BY_SERIAL)  # type: ignore[arg-type]
    pools, (unassigned,) = build_pools(without_mx_smi("2xS30"), (resource,))
    assert pools == ()
    assert unassigned.device_ids == (*A, *B)
    assert unassigned.why == "their serial number is not known, and x.io/a excludes by it"
    ((pool,), none) = build_pools(state_of("2xS30"), (resource,))
    assert [i for device in pool.devices for i in device.device_ids] == B
    assert none == ()


def test_a_selection_by_what_is_not_known_says_so_of_those_that_it_could_be() -> None:
    here = replace(BY_SERIAL, numa_nodes=frozenset({"0"}))
    pools, (unassigned,) = build_pools(without_mx_smi("2xS30"), (Resource("x.io/a", select=here),))
    assert pools == ()
    assert unassigned.device_ids == tuple(A), "those on the other NUMA node it cannot be"
    assert unassigned.why == "their serial number is not known, and x.io/a selects by it"


def test_a_device_without_a_numa_node_is_not_taken_for_unknown() -> None:
    state = state_of("1xS4")
    devices = tuple(
        replace(device, function=replace(device.function, numa_node=None))
        for device in state.snapshot.devices
    )
    state = replace(state, snapshot=replace(state.snapshot, devices=devices))
    node_1 = Selector(numa_nodes=frozenset({"1"}))
    pool = the_only_pool(state, Resource("x.io/a", exclude=node_1))
    assert len(pool.devices) == 1


# -- what a kubelet accepts ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "spu", "moffett.ai/", "moffett.ai/a/b", "Moffett.ai/spu", "moffett.ai/spu-", "a_b.c/spu",
        "kubernetes.io/spu", "x.kubernetes.io/spu", "mykubernetes.io/spu",
        "requests.moffett.ai/spu", "requests.x/spu", f"{'a' * 245}/spu", f"a/{'b' * 64}",
    ],
)  # fmt: skip
def test_names_that_a_kubelet_refuses(name: str) -> None:
    with pytest.raises(ConfigurationError, match="use DOMAIN/NAME outside"):
        check_resource_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "moffett.ai/spu", "kubernetes.io.example/spu", "requests/spu", f"{'a' * 244}/spu",
        f"{'a' * 100}.b/S30_x.y", f"a/{'b' * 63}",
    ],
)  # fmt: skip
def test_names_that_a_kubelet_accepts(name: str) -> None:
    assert check_resource_name(name) == name


def test_resources_whose_variables_would_have_one_name_are_refused() -> None:
    here, there = (Selector(numa_nodes=frozenset({node})) for node in "01")
    resources = Resource("x.io/a-b", select=here), Resource("x.io/a.b", select=there)
    with pytest.raises(ConfigurationError, match=r"environment variables .* of 1"):
        check_disjoint(resources, ["1", "2"])


# -- names from products ----------------------------------------------------------------


def test_each_product_has_its_name() -> None:
    pools, _ = build_pools(state_of("1xS30,2xS4"), (Resource(None),))
    assert {d.name: len(d.advertised()) for d in pools} == {"moffett.ai/s30": 3, "moffett.ai/s4": 2}


def test_a_device_of_unknown_product_is_told_and_not_given_a_name() -> None:
    known = state_of("1xS4")
    devices = tuple(replace(device, product=None) for device in known.snapshot.devices)
    state = replace(known, snapshot=replace(known.snapshot, devices=devices))
    pools, (unassigned,) = build_pools(state, (Resource(None),))
    assert pools == ()
    assert "product is not known" in unassigned.why


# -- sharing ----------------------------------------------------------------------------


def shared(replicas: int, most: int | None = None, *, refuse: bool = False) -> Resource:
    return Resource("moffett.ai/spu.shared", sharing=Sharing(replicas, most, refuse))


def test_every_device_is_there_once_for_each_replica() -> None:
    state = state_of("2xS30", Faults().with_fault(A[0], "hot"))
    units = the_only_pool(state, shared(3)).advertised()
    assert len(units) == 18
    assert [unit.id for unit in units[:3]] == [f"{A[0]}::{n}" for n in range(3)]
    assert [unit.healthy for unit in units] == [False] * 3 + [True] * 15


def test_replicas_of_one_request_are_on_different_chips_and_the_least_used() -> None:
    state = state_of("2xS30")
    allocator = allocator_of(state, shared(4))
    free = [f"{i}::{n}" for i in (*A, *B) for n in range(4)]
    free.remove(f"{A[0]}::0")
    free.remove(f"{B[0]}::0")
    free.remove(f"{B[2]}::3")
    chosen = allocator.prefer(free, [], 3)
    assert {strip_replica(i) for i in chosen} == {A[1], A[2], B[1]}, "those that nobody uses"
    assert len({strip_replica(i) for i in allocator.prefer(free, [], 6)}) == 6


def test_a_container_with_two_replicas_of_a_chip_gets_it_once() -> None:
    granted = allocator_of(state_of("2xS30"), shared(4)).allocate([f"{A[0]}::0", f"{A[0]}::3"])
    assert granted.envs["MOFFETT_SPU_IDS"] == A[0]


@pytest.mark.parametrize("unit_id", [f"{A[0]}::4", A[0], f"{A[0]}::-1", f"{A[0]}::01", f"{A[0]}::"])
def test_a_replica_that_is_not_advertised_is_refused(unit_id: str) -> None:
    with pytest.raises(UnknownDeviceError):
        allocator_of(state_of("2xS30"), shared(4)).allocate([unit_id])


def test_a_limit_on_the_replicas_of_a_container_names_its_setting() -> None:
    ids = [f"{A[n]}::0" for n in range(3)]
    state = state_of("2xS30")
    with pytest.raises(RefusalError, match=r"3 of moffett\.ai/spu\.shared .*maxPerPod is 2"):
        allocator_of(state, shared(4, 2)).allocate(ids)
    assert allocator_of(state, shared(4, 2)).allocate(ids[:2]).nodes
    with pytest.raises(PlacementError, match="failRequestsGreaterThanOne is on"):
        allocator_of(state, shared(4, refuse=True)).prefer(ids, [], 2)


def test_replicas_of_a_sick_chip_are_never_preferred() -> None:
    state = state_of("2xS30", Faults().with_fault(A[0], "hot"))
    free = [f"{A[0]}::{n}" for n in range(4)] + [f"{B[2]}::3"]
    assert allocator_of(state, shared(4)).prefer(free, [], 1) == (f"{B[2]}::3",)
    with pytest.raises(PlacementError, match="2 replicas were asked for and 1 are available; dev"):
        allocator_of(state, shared(4)).prefer(free, [], 2)


@given(data=st.data())
def test_no_other_choice_of_replicas_is_better(data: st.DataObject) -> None:
    """Against all choices: fewest on one chip, then the least used chips, then the
    placement that chips alone would have."""
    replicas = data.draw(st.integers(2, 3))
    chips = [*A[:2], *B[:2]]
    everything = [f"{chip}::{n}" for chip in chips for n in range(replicas)]
    free = sorted(data.draw(st.sets(st.sampled_from(everything), min_size=1, max_size=9)))
    size = data.draw(st.integers(1, len(free)))
    state = state_of("2xS30")
    tree = build_tree(state.snapshot.devices)
    chosen = place_replicas(tree, free, [], size, replicas=replicas)
    assert len(set(chosen)) == size
    assert set(chosen) <= set(free)
    used = {chip: replicas - sum(strip_replica(i) == chip for i in free) for chip in chips}

    def merit(ids: tuple[str, ...]) -> tuple[list[int], list[int]]:
        counts = [sum(strip_replica(i) == chip for i in ids) for chip in chips]
        first = {strip_replica(i) for i in ids}
        return sorted(counts, reverse=True), sorted(used[chip] for chip in first)

    assert merit(chosen) == min(merit(ids) for ids in combinations(free, size))
    if len({used[strip_replica(i)] for i in free}) == 1 and size <= len(
        {strip_replica(i) for i in free}
    ):
        devices = sorted({strip_replica(i) for i in free})
        assert {strip_replica(i) for i in chosen} == set(place(tree, devices, [], size).ids)


@given(data=st.data())
def test_replicas_that_must_be_in_are_in(data: st.DataObject) -> None:
    everything = [f"{chip}::{n}" for chip in (*A, *B) for n in range(3)]
    free = data.draw(st.sets(st.sampled_from(everything), min_size=1))
    must_include = data.draw(st.sets(st.sampled_from(sorted(free))))
    size = data.draw(st.integers(len(must_include), len(free)))
    tree = build_tree(state_of("2xS30").snapshot.devices)
    chosen = place_replicas(tree, free, must_include, size, replicas=3)
    assert must_include <= set(chosen) <= free
    assert len(chosen) == len(set(chosen)) == size
