"""Why a request gets the devices it gets: the best set, the second best, and what
decided between them. Pure.

The second best set is found exactly. Every set that is not the best lacks some of
its members; sorted by the first one lacking, they fall into as many parts as it has
members, and the best of each part is an ordinary placement with that member excluded
and those before it required. The second best set is the best of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from types import MappingProxyType
from typing import Literal

from ..allocation.allocator import PoolAllocator
from ..allocation.placement import Placement, Score, groups, place, score
from ..allocation.topology import COSTS, Level, Tree, build_tree, with_cards
from ..devices.health.reasons import Reason
from ..devices.state import NodeState
from ..resources.device_ids import strip_replica
from ..resources.pools import DEFAULT_RESOURCE, Policy, Resource, ResourcePool, build_pools
from ..runtime.watchable import Watchable

#: Advertised devices of a pool, and the pods that hold each, as `namespace/pod`.
Held = Mapping[str, Sequence[str]]
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
    HELD = "held"
    UNHEALTHY = "unhealthy"
    UNAVAILABLE = "unavailable"  # healthy, but not among those to choose from


@dataclass(frozen=True, slots=True)
class Chip:
    """A leaf of the tree, a device or a whole card, as the request finds it. `holders` are
    the pods that hold it, as `namespace/pod`."""

    id: str
    state: ChipState
    must_include: bool
    reasons: tuple[Reason, ...] = ()
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """A subtree of the node: `left` of its `total` devices could still be given to
    others. `chip` for a leaf, `children` for everything else."""

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
    """`available` is what could be chosen: free and healthy. `runner_up` is None when no
    other set meets the request, and for a shared resource."""

    resource: str
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
    pool: ResourcePool | None = None,
    held: Held = MappingProxyType({}),
    available: Collection[str] | None = None,
    must_include: Collection[str] = (),
    policy: Policy = "compact",
) -> Explanation:
    """What the daemon would prefer for this request, and why. `held` are the pods that hold
    each advertised device of the pool; `available` None is all others. Without `pool`, all
    devices are one resource. Raises PlacementError when the request cannot be met."""
    pool = pool or pool_of_all(state)
    pool = replace(pool, resource=replace(pool.resource, placement=policy))
    # The daemon's own allocator: what it says here is what the kubelet gets.
    allocator = PoolAllocator(Watchable(state), lambda: pool)
    free = free_ids(pool, held) if available is None else available
    usable = {i for i in {*free, *must_include} if _usable(pool, i)}
    wanted, must = sorted({*free, *must_include}), sorted(must_include)
    tree = _tree_of(pool, state)
    second = None
    if pool.resource.sharing.shared:
        ids = tuple(allocator.prefer(wanted, must, size))
        chosen = _choice(tree, {strip_replica(i) for i in usable}, ids)
    else:
        best = allocator.place(wanted, must, size)
        ids = best.ids
        chosen = _choice(tree, usable, ids)
        if placed := runner_up(tree, usable, must_include, best, policy=policy):
            choice = _choice(tree, usable, placed.ids)
            second = RunnerUp(choice, _why(tree, usable, chosen, choice, policy))
    leaves = {leaf.id: leaf for leaf in _leaves(pool, state, usable, ids, must_include, held)}
    return Explanation(
        resource=pool.name,
        size=size,
        policy=policy,
        available=tuple(d.id for d in pool.advertised() if d.id in usable),
        must_include=tuple(d.id for d in pool.advertised() if d.id in must_include),
        chosen=chosen,
        runner_up=second,
        tree=_branch(tree, leaves),
    )


def pool_of_all(state: NodeState) -> ResourcePool:
    """All devices of the node as one resource."""
    pools, _ = build_pools(state, (Resource(),))
    return pools[0] if pools else ResourcePool(DEFAULT_RESOURCE, Resource(), ())


def free_ids(pool: ResourcePool, held: Held) -> tuple[str, ...]:
    """The advertised devices that no pod holds."""
    return tuple(device.id for device in pool.advertised() if device.id not in held)


def _usable(pool: ResourcePool, device_id: str) -> bool:
    base = strip_replica(device_id)
    return any(device.id == base and device.healthy for device in pool.devices)


def _tree_of(pool: ResourcePool, state: NodeState) -> Tree:
    known = state.snapshot.by_id()
    ids = [device_id for advertised in pool.devices for device_id in advertised.device_ids]
    tree = build_tree([known[device_id] for device_id in ids if device_id in known])
    if pool.resource.granularity == "card":
        return with_cards(tree, {device.device_ids: device.id for device in pool.devices})
    return tree


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
    bases = tuple(dict.fromkeys(strip_replica(i) for i in ids))
    counts = _pairs_by_level(tree, frozenset(bases))
    by_level = {level: Pairs(counts[level], COSTS[level]) for level in Level if counts[level]}
    return Choice(ids, score(tree, available, bases), by_level)


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


def _branch(node: Tree, leaves: Mapping[str, Chip]) -> Branch:
    if node.device_id is not None:
        chip = leaves[node.device_id]
        left = 1 if chip.state is ChipState.AVAILABLE else 0
        return Branch(node.level, node.name, 1, left, chip=chip)
    children = tuple(_branch(child, leaves) for child in node.children)
    total, left = sum(c.total for c in children), sum(c.left for c in children)
    return Branch(node.level, node.name, total, left, children)


def _leaves(
    pool: ResourcePool,
    state: NodeState,
    usable: Collection[str],
    chosen: Collection[str],
    must_include: Collection[str],
    held: Held,
) -> Iterator[Chip]:
    chosen, must = {strip_replica(i) for i in chosen}, {strip_replica(i) for i in must_include}
    free = {strip_replica(i) for i in usable}
    pods: dict[str, dict[str, None]] = {}
    for device_id, holders in held.items():
        pods.setdefault(strip_replica(device_id), {}).update(dict.fromkeys(holders))
    for device in pool.devices:
        healthy = all(state.healthy(i) for i in device.device_ids)
        reasons = tuple(r for i in device.device_ids for r in state.health_statuses[i].reasons)
        holders = tuple(pods.get(device.id, ())) or ((device.held,) if device.held else ())
        if device.id in chosen:
            status = ChipState.CHOSEN
        elif device.id in free:
            status = ChipState.AVAILABLE
        elif not healthy:
            status = ChipState.UNHEALTHY
        else:
            status = ChipState.HELD if holders else ChipState.UNAVAILABLE
        yield Chip(device.id, status, device.id in must, reasons, holders)


# -- a request that cannot be met -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a node has no room for `size` of a resource. `free` counts healthy and free ones
    by card; `unhealthy` has the reasons of the others, and `held` the pods that hold the
    healthy ones. `enough` says whether there is room when all of these end; `to_end` are a few
    of them that are sufficient, and none of which can be left out."""

    resource: str
    size: int
    free: Mapping[str, int]
    unhealthy: Mapping[str, tuple[Reason, ...]]
    held: Mapping[str, tuple[str, ...]]
    enough: bool
    to_end: tuple[str, ...]

    @property
    def free_count(self) -> int:
        return sum(self.free.values())


def shortage(state: NodeState, pool: ResourcePool, size: int, held: Held) -> Shortage:
    """Counts what a request of `size` finds on this node."""
    cards = {device.id: device.card for device in state.snapshot.devices}
    free: Counter[str] = Counter()
    unhealthy: dict[str, tuple[Reason, ...]] = {}
    pods: dict[str, tuple[str, ...]] = {}
    for device in pool.advertised():
        if not all(state.healthy(i) for i in device.device_ids):
            unhealthy[device.id] = tuple(
                r for i in device.device_ids for r in state.health_statuses[i].reasons
            )
        elif holders := held.get(device.id) or ((device.held,) if device.held else ()):
            pods[device.id] = tuple(holders)
        else:
            free[cards[device.device_ids[0]]] += 1
    missing = size - sum(free.values())
    enough = missing <= len(pods)
    to_end = pods_to_end(pods, missing) if enough else ()
    return Shortage(pool.name, size, free, unhealthy, pods, enough, to_end)


def pods_to_end(held: Held, missing: int) -> tuple[str, ...]:
    """Pods that free at least `missing` devices when they end; a device is free when all
    that hold it have ended. Those first that free most devices for each pod."""
    holders = {device_id: frozenset(pods) for device_id, pods in held.items()}
    ended: frozenset[str] = frozenset()

    def freed(pods: frozenset[str]) -> int:
        return sum(who <= pods for who in holders.values())

    while freed(ended) < missing:
        candidates = dict.fromkeys(who - ended for who in holders.values() if not who <= ended)
        ended |= max(candidates, key=lambda pods: (freed(ended | pods) - freed(ended)) / len(pods))
    for pod in sorted(ended, reverse=True):
        if freed(ended - {pod}) >= missing:
            ended -= {pod}
    return tuple(pod for pod in dict.fromkeys(chain.from_iterable(held.values())) if pod in ended)
