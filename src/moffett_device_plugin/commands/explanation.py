"""Why a request gets the devices it gets: the best set, the second best, and what
decided between them. Pure.

The second best set is found exactly. Every set that is not the best lacks some of
its members; sorted by the first one lacking, they fall into as many parts as it has
members, and the best of each part is an ordinary placement with that member excluded
and those before it required. The second best set is the best of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ..allocation.allocator import PoolAllocator
from ..allocation.placement import Placement, Score, groups, place, score
from ..allocation.topology import COSTS, Level, Tree, build_tree
from ..devices.health.reasons import Reason
from ..devices.state import NodeState
from ..resources.pools import DEFAULT_RESOURCE, Policy, Resource, ResourcePool, build_pools
from ..runtime.watchable import Watchable

#: What a group at each level is called, for people.
NAMES: Mapping[Level, str] = {
    Level.CHIP: "chip",
    Level.CARD: "card",
    Level.SWITCH: "switch",
    Level.ROOT_COMPLEX: "root complex",
    Level.NUMA_NODE: "NUMA node",
    Level.MACHINE: "machine",
}


class ChipState(StrEnum):
    CHOSEN = "chosen"
    AVAILABLE = "available"
    UNHEALTHY = "unhealthy"
    UNAVAILABLE = "unavailable"  # healthy, and not on offer


@dataclass(frozen=True, slots=True)
class Chip:
    """One device as the request finds it; `must` is whether it had to be chosen."""

    id: str
    state: ChipState
    must_include: bool
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """A subtree of the node: `left` of its `total` devices could still be given to
    others. `chip` for a chip, `children` for everything else."""

    level: Level
    name: str
    total: int
    left: int
    children: tuple[Branch, ...] = ()
    chip: Chip | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """`count` pairs of devices that are `cost` apart."""

    count: int
    cost: int

    @property
    def distance(self) -> int:
        return self.count * self.cost


@dataclass(frozen=True, slots=True)
class Choice:
    """A set of devices in bus order. `by_level` splits its distance by the smallest
    thing that both of a pair are in, the nearest first."""

    ids: tuple[str, ...]
    score: Score
    by_level: Mapping[Level, Pairs]


@dataclass(frozen=True, slots=True)
class Why:
    """What the second best set lost by: the first thing in which it is worse."""

    code: Literal["distance", "fragmentation", "order"]
    message: str


@dataclass(frozen=True, slots=True)
class RunnerUp:
    choice: Choice
    why: Why


@dataclass(frozen=True, slots=True)
class Explanation:
    """`available` is what could be chosen: on offer and healthy. `runner_up` is None
    when no other set meets the request."""

    size: int
    policy: Policy
    available: tuple[str, ...]
    must_include: tuple[str, ...]
    chosen: Choice
    runner_up: RunnerUp | None
    tree: Branch


def explain(
    state: NodeState,
    size: int,
    *,
    available: Collection[str] | None = None,
    must_include: Collection[str] = (),
    policy: Policy = "compact",
) -> Explanation:
    """What the daemon would prefer for this request, and why; `available` None is all
    that the node has. Raises PlacementError when the request cannot be met."""
    devices = state.snapshot.devices
    on_offer = {device.id for device in devices} if available is None else set(available)
    on_offer |= set(must_include)
    # The daemon's own allocator: what it says here is what the kubelet is told.
    pools, _ = build_pools(state, (Resource(placement=policy),))
    pool = pools[0] if pools else ResourcePool(DEFAULT_RESOURCE, Resource(), ())
    allocator = PoolAllocator(Watchable(state), lambda: pool)
    best = allocator.place(sorted(on_offer), sorted(must_include), size)
    usable = tuple(d.id for d in devices if d.id in on_offer and state.healthy(d.id))
    tree = build_tree(devices)
    chosen = _choice(tree, usable, best.ids)
    second = runner_up(tree, usable, must_include, best, policy=policy)
    other = None
    if second is not None:
        choice = _choice(tree, usable, second.ids)
        other = RunnerUp(choice, _why(tree, usable, chosen, choice, policy))
    return Explanation(
        size=size,
        policy=policy,
        available=usable,
        must_include=tuple(device.id for device in devices if device.id in must_include),
        chosen=chosen,
        runner_up=other,
        tree=_branch(tree, state, frozenset(usable), frozenset(best.ids), frozenset(must_include)),
    )


def runner_up(
    tree: Tree,
    available: Collection[str],
    must_include: Collection[str],
    best: Placement,
    *,
    policy: Policy = "compact",
    costs: Mapping[Level, int] = COSTS,
) -> Placement | None:
    """The second best set: what `place` would choose if `best`, its choice for this
    request, were impossible. None when there is no other set."""
    size, usable = len(best.ids), {*available, *must_include}
    if size >= len(usable):
        return None
    candidates = [
        place(
            tree, usable, {*must_include, *best.ids[:number]}, size,
            policy=policy, costs=costs, exclude=[lacking],
        )
        for number, lacking in enumerate(best.ids)
        if lacking not in must_include
    ]  # fmt: skip
    return min(
        candidates,
        key=lambda placed: score(tree, usable, placed.ids, costs).rank(policy),
        default=None,
    )


def _choice(tree: Tree, available: Collection[str], ids: tuple[str, ...]) -> Choice:
    counts = _pairs_by_level(tree, frozenset(ids))
    by_level = {level: Pairs(counts[level], COSTS[level]) for level in Level if counts[level]}
    return Choice(ids, score(tree, available, ids), by_level)


def _pairs_by_level(tree: Tree, chosen: frozenset[str]) -> Counter[Level]:
    """How many pairs of `chosen` have their nearest common subtree at each level."""
    counts: Counter[Level] = Counter()

    def visit(node: Tree) -> int:
        if node.device_id is not None:
            return 1 if node.device_id in chosen else 0
        seen = 0
        for child in node.children:
            below = visit(child)
            counts[node.level] += seen * below
            seen += below
        return seen

    visit(tree)
    return counts


def _why(
    tree: Tree, available: Collection[str], best: Choice, other: Choice, policy: Policy
) -> Why:
    if policy == "none":
        return Why("order", "later in bus order, which is all that this policy looks at")
    apart = other.score.distance - best.score.distance
    if apart:
        how = "farther apart" if apart > 0 else "nearer together"
        return Why("distance", f"{how} by {abs(apart)}")
    near = "equally near" if policy == "compact" else "equally far apart"
    for level, more in other.score.fragmentation.items():
        less = best.score.fragmentation[level]
        if more != less:
            what = _more_fragmented(tree, level, available, best.ids, other.ids)
            return Why(
                "fragmentation",
                f"{near}, but {what} (fragmentation by {NAMES[level]}: {more} against {less})",
            )
    return Why("order", f"{near} and no more fragmented, but later in bus order")


def _more_fragmented(
    tree: Tree,
    level: Level,
    available: Collection[str],
    best: Sequence[str],
    other: Sequence[str],
) -> str:
    """Names a group at `level` that `other` leaves more fragmented than `best` does;
    one that is whole today if there is one, for breaking that is what hurts."""
    leaves_more: list[str] = []
    now = frozenset(available)
    for before, kept, left in zip(
        groups(tree, now), groups(tree, now.difference(best)), groups(tree, now.difference(other)),
        strict=True,
    ):  # fmt: skip
        if left.level is not level or left.fragmentation <= kept.fragmentation:
            continue
        name = f"{NAMES[level]} {left.name}"
        if kept.fragmentation:
            leaves_more.append(f"leaves {name} more fragmented")
        elif before.left == before.total:
            return f"breaks {name}"
        else:
            leaves_more.append(f"leaves {name} broken, which the chosen set uses up")
    return leaves_more[0]


def _branch(
    node: Tree,
    state: NodeState,
    usable: frozenset[str],
    chosen: frozenset[str],
    must_include: frozenset[str],
) -> Branch:
    if node.device_id is not None:
        chip = _chip(node.device_id, state, usable, chosen, must_include)
        left = 1 if chip.state is ChipState.AVAILABLE else 0
        return Branch(node.level, node.name, 1, left, chip=chip)
    children = tuple(_branch(child, state, usable, chosen, must_include) for child in node.children)
    return Branch(
        node.level,
        node.name,
        sum(child.total for child in children),
        sum(child.left for child in children),
        children,
    )


def _chip(
    device_id: str,
    state: NodeState,
    usable: frozenset[str],
    chosen: frozenset[str],
    must_include: frozenset[str],
) -> Chip:
    if device_id in chosen:
        status = ChipState.CHOSEN
    elif device_id in usable:
        status = ChipState.AVAILABLE
    elif not state.healthy(device_id):
        status = ChipState.UNHEALTHY
    else:
        status = ChipState.UNAVAILABLE
    return Chip(
        device_id, status, device_id in must_include, state.health_statuses[device_id].reasons
    )
