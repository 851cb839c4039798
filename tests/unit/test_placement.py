"""Which devices a pod is given: checked against every possible choice."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moffett_device_plugin.allocation.placement import PlacementError, place, total_distance
from moffett_device_plugin.allocation.topology import COSTS, Level, Tree, build_tree, distances
from moffett_device_plugin.resources.pools import Policy
from tests.support.values import ids_of, snapshot_of

TREE = build_tree(snapshot_of("4xS30").devices)
IDS = ids_of("4xS30")
A, B, C, D = (tuple(IDS[i : i + 3]) for i in range(0, 12, 3))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Small nodes of every shape: cards of 1 to 3 chips, uneven, some switches shared."""
    number = iter(range(100))

    def cards() -> tuple[Tree, ...]:
        return tuple(
            Tree(
                Level.CARD,
                f"card{next(number)}",
                tuple(
                    Tree(Level.CHIP, name, device_id=name)
                    for name in (f"d{next(number)}" for _ in range(draw(st.integers(1, 3))))
                ),
            )
            for _ in range(draw(st.integers(1, 2)))
        )

    def switch() -> Tree:
        return Tree(Level.SWITCH, f"switch{next(number)}", cards())

    def root() -> Tree:
        return Tree(
            Level.ROOT_COMPLEX,
            f"root{next(number)}",
            tuple(switch() for _ in range(draw(st.integers(1, 2)))),
        )

    numas = tuple(
        Tree(Level.NUMA_NODE, f"numa{n}", (root(),)) for n in range(draw(st.integers(1, 2)))
    )
    return Tree(Level.MACHINE, "machine", numas)


def leaves(tree: Tree) -> list[str]:
    if tree.device_id is not None:
        return [tree.device_id]
    return [leaf for child in tree.children for leaf in leaves(child)]


def subtrees(tree: Tree) -> list[Tree]:
    return [tree, *(below for child in tree.children for below in subtrees(child))]


def fragmentation(tree: Tree, left: set[str]) -> tuple[int, ...]:
    """Per level, what matters most first: the sum of r * (t - r) over its subtrees."""
    sums = dict.fromkeys((Level.CARD, Level.SWITCH, Level.ROOT_COMPLEX, Level.NUMA_NODE), 0)
    for node in subtrees(tree):
        if node.level in sums:
            below = leaves(node)
            rest = len(left & set(below))
            sums[node.level] += rest * (len(below) - rest)
    return tuple(sums.values())


def request_of(data: st.DataObject, tree: Tree) -> tuple[set[str], set[str], int]:
    """Any valid request: the available, those that must be included, and how many."""
    everything = leaves(tree)[:10]
    available = data.draw(st.sets(st.sampled_from(everything), min_size=1), "available")
    must_include = data.draw(st.sets(st.sampled_from(sorted(available)), max_size=2), "must")
    return (
        available,
        must_include,
        data.draw(st.integers(max(1, len(must_include)), len(available)), "size"),
    )


@settings(max_examples=150, deadline=None)
@given(st.data(), trees(), st.sampled_from(["compact", "spread"]))
def test_no_choice_is_better(data: st.DataObject, tree: Tree, policy: Policy) -> None:
    available, must_include, size = request_of(data, tree)
    far = distances(tree)
    order = {name: place for place, name in enumerate(leaves(tree))}
    sign = -1 if policy == "spread" else 1

    def rank(chosen: tuple[str, ...]) -> tuple[object, ...]:
        distance = sum(far[frozenset(pair)] for pair in combinations(chosen, 2))
        rest = available - set(chosen)
        return sign * distance, fragmentation(tree, rest), sorted(order[i] for i in chosen)

    best = min(
        (c for c in combinations(sorted(available), size) if must_include <= set(c)), key=rank
    )
    placed = place(tree, available, must_include, size, policy=policy)
    assert sorted(placed.ids) == sorted(best)
    assert placed.distance == sum(far[frozenset(pair)] for pair in combinations(best, 2))


def test_two_go_on_one_card() -> None:
    assert place(TREE, IDS, [], 2).ids == A[:2]


def test_a_small_request_fills_a_broken_card_first() -> None:
    assert place(TREE, [*A, *B, C[2], *D], [], 1).ids == (C[2],)
    assert place(TREE, [*A, *B[1:], *C, *D], [], 2).ids == B[1:]


def test_three_take_a_whole_card_and_not_the_pieces() -> None:
    assert place(TREE, [*A[:2], B[0], *D], [], 3).ids == D


def test_six_stay_on_one_socket() -> None:
    assert place(TREE, [*A, *C, *D], [], 6).ids == (*C, *D)


def test_the_socket_in_use_is_filled_before_the_other_is_touched() -> None:
    assert place(TREE, [*B, *C, *D], [], 3).ids == B


def test_what_must_be_in_is_in_and_draws_the_rest_near() -> None:
    assert place(TREE, [*A, *B], [B[1]], 2).ids == (B[0], B[1])


def test_spread_takes_both_sockets() -> None:
    ids = place(TREE, IDS, [], 2, policy="spread").ids
    assert total_distance(TREE, frozenset(ids)) == COSTS[Level.MACHINE]


def test_none_takes_the_lowest() -> None:
    assert place(TREE, [IDS[11], IDS[2], IDS[5]], [], 2, policy="none").ids == (IDS[2], IDS[5])


def test_the_lowest_in_bus_order_also_where_sockets_interleave() -> None:
    devices = snapshot_of("6xS4").devices
    interleaved = [
        replace(device, function=replace(device.function, numa_node=number % 2, ancestors=()))
        for number, device in enumerate(devices)
    ]
    ids = [device.id for device in interleaved]
    tree = build_tree(interleaved)
    assert place(tree, ids, [], 4, policy="none").ids == tuple(ids[:4])
    assert place(tree, ids, [], 6).ids == tuple(ids)
    assert place(tree, ids[1:], [], 1).ids == (ids[2],), "the socket that is already broken"


@pytest.mark.parametrize(
    ("must_include", "size", "text"),
    [
        ([], 13, "13 devices were asked for and 12 are available"),
        ([IDS[0], IDS[1]], 1, "1 devices were asked for, but 2 must be in"),
        (["ghost"], 2, "unknown device ghost"),
    ],
)
def test_an_impossible_request_says_why(must_include: list[str], size: int, text: str) -> None:
    with pytest.raises(PlacementError, match=text):
        place(TREE, IDS, must_include, size)


def test_unknown_devices_on_offer_do_not_spoil_a_request_that_can_be_met() -> None:
    assert place(TREE, ["ghost", *A], [], 2).ids == A[:2]
