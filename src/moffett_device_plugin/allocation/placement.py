"""The best set of devices for a request, found exactly. Pure.

The best set has the least total distance between its pairs; among equals, the one
that leaves the rest least fragmented; among those, the lowest in bus order. All
three add up over subtrees, so each is a part of one number, and the least number
for k devices of a subtree follows from those of its children (a knapsack over the
tree): time grows with the square of the devices, where enumeration is exponential.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..resources.pools import Policy
from .topology import COSTS, Level, Tree

#: Levels that can be left whole or broken, the one that matters most last.
_FRAGMENTS = (Level.NUMA_NODE, Level.ROOT_COMPLEX, Level.SWITCH, Level.CARD)
#: Bits for the fragmentation of one level: the sum of r * (t - r) over its
#: subtrees is below (number of devices) ** 2.
_BITS = 26


class PlacementError(Exception):
    """The request cannot be met; the text says why."""


@dataclass(frozen=True, slots=True)
class Placement:
    """`ids` in bus order; `distance` is the sum over all pairs of them."""

    ids: tuple[str, ...]
    distance: int


@dataclass(frozen=True, slots=True)
class Score:
    """What a set is compared by. `fragmentation` has the sum for each level, the one
    that matters most first; `places` are those of its devices in bus order."""

    distance: int
    fragmentation: Mapping[Level, int]
    places: tuple[int, ...]

    def rank(self, policy: Policy) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """The least rank is the best; no two sets have the same."""
        if policy == "none":
            return 0, (), self.places
        sign = -1 if policy == "spread" else 1
        return sign * self.distance, tuple(self.fragmentation.values()), self.places


@dataclass(frozen=True, slots=True)
class Group:
    """A subtree that can be left whole or broken: `left` devices of its `total`."""

    level: Level
    name: str
    total: int
    left: int

    @property
    def fragmentation(self) -> int:
        """Nothing for a subtree left whole or used up, most for one half full."""
        return self.left * (self.total - self.left)


def place(
    tree: Tree,
    available: Collection[str],
    must_include: Collection[str],
    size: int,
    *,
    policy: Policy = "compact",
    costs: Mapping[Level, int] = COSTS,
    exclude: Collection[str] = (),
) -> Placement:
    """The best `size` devices of `available`, all of `must` and none of `exclude`
    among them.

    `must` counts as available. What is in `exclude` is not taken, but is still there
    to be left: it counts for fragmentation. Raises PlacementError when there is no
    such set.
    """
    order = _leaves(tree)
    place_of = {device_id: number for number, device_id in enumerate(order)}
    unknown = sorted(set(must_include) - place_of.keys())
    if unknown:
        raise PlacementError(f"unknown device {', '.join(unknown)}")
    usable = (set(available) | set(must_include)) & place_of.keys()
    if size < len(set(must_include)):
        raise PlacementError(
            f"{size} devices were asked for, but {len(set(must_include))} must be in"
        )
    takable = len(usable.difference(exclude))
    if size > takable:
        raise PlacementError(f"{size} devices were asked for and {takable} are available")
    solver = _Solver(
        usable, frozenset(must_include), frozenset(exclude), size, policy, costs, place_of
    )
    value = solver.table(tree).value_of(size)
    mask = -value & ((1 << len(order)) - 1)
    # The lowest place has the highest bit, so that lower sets make smaller numbers.
    ids = tuple(d for number, d in enumerate(order) if mask >> (len(order) - 1 - number) & 1)
    return Placement(ids, total_distance(tree, frozenset(ids), costs))


def total_distance(tree: Tree, chosen: frozenset[str], costs: Mapping[Level, int] = COSTS) -> int:
    """The sum of the distances of all pairs of `chosen`."""

    def visit(node: Tree) -> tuple[int, int]:
        if node.device_id is not None:
            return (1 if node.device_id in chosen else 0), 0
        count, distance = 0, 0
        for child in node.children:
            below, inside = visit(child)
            distance += inside + count * below * costs[node.level]
            count += below
        return count, distance

    return visit(tree)[1]


def score(
    tree: Tree,
    available: Collection[str],
    chosen: Collection[str],
    costs: Mapping[Level, int] = COSTS,
) -> Score:
    """How good it is to take `chosen` of `available`."""
    taken = frozenset(chosen)
    sums = dict.fromkeys(reversed(_FRAGMENTS), 0)
    for group in groups(tree, frozenset(available) - taken):
        sums[group.level] += group.fragmentation
    places = tuple(place for place, device_id in enumerate(_leaves(tree)) if device_id in taken)
    return Score(total_distance(tree, taken, costs), sums, places)


def groups(tree: Tree, left: Collection[str]) -> tuple[Group, ...]:
    """Every subtree that fragmentation is counted for; the order depends on `tree`
    alone, so that those of two choices can be compared one by one."""
    found: list[Group] = []

    def visit(node: Tree) -> tuple[int, int]:
        if node.device_id is not None:
            return 1, 1 if node.device_id in left else 0
        below = [visit(child) for child in node.children]
        total, rest = sum(t for t, _ in below), sum(r for _, r in below)
        if node.level in _FRAGMENTS:
            found.append(Group(node.level, node.name, total, rest))
        return total, rest

    visit(tree)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Table:
    """The least value for each number of devices chosen from a subtree: those of
    `least` and on, up to all that are usable in it. `total` counts all in it."""

    least: int
    values: list[int]
    usable: int
    total: int

    def value_of(self, count: int) -> int:
        return self.values[count - self.least]


@dataclass(frozen=True, slots=True)
class _Solver:
    usable: Collection[str]
    must_include: Collection[str]
    exclude: Collection[str]
    size: int
    policy: Policy
    costs: Mapping[Level, int]
    place_of: Mapping[str, int]

    def table(self, node: Tree) -> _Table:
        if node.device_id is not None:
            return self._leaf(node.device_id)
        table = _Table(0, [0], 0, 0)
        pair_cost = self._pair_cost(node.level)
        for child in node.children:
            table = self._merged(table, self.table(child), pair_cost)
        return self._with_fragmentation(table, node.level)

    def _leaf(self, device_id: str) -> _Table:
        chosen = -(1 << (len(self.place_of) - 1 - self.place_of[device_id]))
        if device_id in self.must_include:
            return _Table(1, [chosen], 1, 1)
        if device_id in self.usable:
            return _Table(0, [0] if device_id in self.exclude else [0, chosen], 1, 1)
        return _Table(0, [0], 0, 1)

    def _pair_cost(self, level: Level) -> int:
        sign = {"compact": 1, "spread": -1, "none": 0}[self.policy]
        return sign * self.costs[level] << (len(self.place_of) + _BITS * len(_FRAGMENTS))

    def _merged(self, one: _Table, other: _Table, pair_cost: int) -> _Table:
        least = one.least + other.least
        most = min(self.size, least + len(one.values) + len(other.values) - 2)
        values: list[int | None] = [None] * (most - least + 1)
        for i, value in enumerate(one.values[: len(values)]):
            step = (one.least + i) * pair_cost
            base = value + step * other.least
            # No more than `size` in all: the rest of the other table is of no use.
            for j, more in enumerate(other.values[: len(values) - i], start=i):
                sum_ = base + more
                best = values[j]
                if best is None or sum_ < best:
                    values[j] = sum_
                base += step
        return _Table(
            least,
            [value for value in values if value is not None],
            one.usable + other.usable,
            one.total + other.total,
        )

    def _with_fragmentation(self, table: _Table, level: Level) -> _Table:
        """Adds what `Group.fragmentation` is for each number of devices left."""
        if self.policy == "none" or level not in _FRAGMENTS:
            return table
        shift = len(self.place_of) + _BITS * _FRAGMENTS.index(level)
        values = [
            value + ((left := table.usable - table.least - i) * (table.total - left) << shift)
            for i, value in enumerate(table.values)
        ]
        return _Table(table.least, values, table.usable, table.total)


def _leaves(tree: Tree) -> list[str]:
    """All devices, in their order on the node."""
    chips: list[tuple[int, str]] = []

    def visit(node: Tree) -> None:
        if node.device_id is not None:
            chips.append((node.order, node.device_id))
        for child in node.children:
            visit(child)

    visit(tree)
    chips.sort(key=lambda chip: chip[0])
    return [device_id for _, device_id in chips]
