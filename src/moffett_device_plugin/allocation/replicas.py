"""Which replicas of which devices or cards a request gets. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..resources.device_ids import replica_number, strip_replica
from ..resources.pools import Policy
from .placement import PlacementError, place
from .topology import Tree


def place_replicas(
    tree: Tree,
    available: Collection[str],
    must_include: Collection[str],
    size: int,
    *,
    replicas: int,
    policy: Policy = "compact",
) -> tuple[str, ...]:
    """The best `size` replicas of `available`, all of `must_include` among them.

    Different devices come before a second replica of the same one, the least used
    before the others, and among equally used ones the set that `place` would choose.
    A device is used by as many replicas as are not available. `tree` has the devices.
    Raises PlacementError when there is no such set.
    """
    free: dict[str, list[str]] = {}
    for replica in sorted({*available, *must_include}, key=_number):
        free.setdefault(strip_replica(replica), []).append(replica)
    used = {device_id: replicas - len(ids) for device_id, ids in free.items()}
    if size < len(set(must_include)):
        raise PlacementError(
            f"{size} replicas were asked for, but {len(set(must_include))} must be in"
        )
    count = sum(len(ids) for ids in free.values())
    if size > count:
        raise PlacementError(f"{size} replicas were asked for and {count} are available")
    chosen: list[str] = []
    taken = dict.fromkeys(free, 0)

    def take(device_id: str, replica: str) -> None:
        free[device_id].remove(replica)
        taken[device_id] += 1
        chosen.append(replica)

    for replica in sorted(set(must_include), key=_number):
        take(strip_replica(replica), replica)
    while (lacking := size - len(chosen)) > 0:
        open_ = [device_id for device_id in free if free[device_id]]
        least = min(taken[device_id] for device_id in open_)
        for device_id in _least_used(
            tree,
            [device_id for device_id in open_ if taken[device_id] == least],
            used,
            taken,
            lacking,
            policy,
        ):
            take(device_id, free[device_id][0])
    return tuple(sorted(chosen, key=lambda replica: (strip_replica(replica), _number(replica))))


def _least_used(
    tree: Tree,
    devices: Sequence[str],
    used: Mapping[str, int],
    taken: Mapping[str, int],
    count: int,
    policy: Policy,
) -> Collection[str]:
    """Up to `count` of `devices`, the least used first."""
    levels: dict[int, list[str]] = {}
    for device_id in devices:
        levels.setdefault(used[device_id], []).append(device_id)
    chosen: list[str] = []
    for _, level in sorted(levels.items()):
        lacking = count - len(chosen)
        if len(level) <= lacking:
            chosen += level
            continue
        if lacking:
            # Near to (or far from) what the request has so far, too.
            before = {*chosen, *(device_id for device_id, number in taken.items() if number)} - {
                *level
            }
            known = [device_id for device_id in before if _holds(tree, device_id)]
            placed = place(tree, {*level, *known}, known, lacking + len(known), policy=policy)
            chosen += [device_id for device_id in placed.ids if device_id not in before]
        break
    return chosen


def _holds(tree: Tree, device_id: str) -> bool:
    return tree.device_id == device_id or any(_holds(child, device_id) for child in tree.children)


def _number(replica: str) -> tuple[int, str]:
    return (replica_number(replica) or 0, replica)
