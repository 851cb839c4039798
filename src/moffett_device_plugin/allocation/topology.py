"""The node as a tree, and how far apart two devices in it are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from ..devices.inventory import Device


class Level(IntEnum):
    """Where in the node a subtree's devices are together."""

    CHIP = 0
    CARD = 1
    SWITCH = 2
    ROOT_COMPLEX = 3
    NUMA_NODE = 4
    MACHINE = 5


#: The distance of two devices by the smallest thing that both are in, in the order
#: in which transfers slow down: the card's own switch, a switch of the server, the
#: same root complex, the same socket, another socket.
COSTS: Mapping[Level, int] = MappingProxyType(
    {
        Level.CHIP: 0,
        Level.CARD: 1,
        Level.SWITCH: 3,
        Level.ROOT_COMPLEX: 6,
        Level.NUMA_NODE: 10,
        Level.MACHINE: 20,
    }
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A subtree; `device_id` for a chip, `children` for everything else. `order` is a
    chip's place on the node: cards and sockets may interleave on the bus."""

    level: Level
    name: str
    children: tuple[Tree, ...] = ()
    device_id: str | None = None
    order: int = 0


def build_tree(devices: Iterable[Device]) -> Tree:
    """The tree of a node's devices, which come in bus order. Levels with a single child
    below them stay, for they are where other devices could be."""
    paths = [(order, device.id, _path(device)) for order, device in enumerate(devices)]
    return _subtree(Level.MACHINE, "machine", paths, 0)


def with_cards(tree: Tree, card_ids: Mapping[tuple[str, ...], str]) -> Tree:
    """The tree with whole cards for leaves; `card_ids` has each card's id by the
    devices on it, in bus order."""
    if tree.level is Level.CARD:
        leaves = sorted(tree.children, key=lambda chip: chip.order)
        card_id = card_ids.get(tuple(chip.device_id or "" for chip in leaves), tree.name)
        return Tree(Level.CARD, tree.name, (), card_id, leaves[0].order)
    children = tuple(with_cards(child, card_ids) for child in tree.children)
    return Tree(tree.level, tree.name, children)


_Step = tuple[Level, str]


def _path(device: Device) -> tuple[_Step, ...]:
    """The steps from the machine down to the device itself."""
    function = device.function
    steps: list[_Step] = [
        (Level.NUMA_NODE, "unknown" if device.numa_node is None else str(device.numa_node))
    ]
    ancestors = list(function.ancestors)
    if function.switch in ancestors:  # the card's own switch is the card
        ancestors = ancestors[: ancestors.index(function.switch)]
    if ancestors and ancestors[0].startswith("pci"):
        steps.append((Level.ROOT_COMPLEX, ancestors.pop(0)))
    steps += [(Level.SWITCH, port) for port in ancestors]
    steps += [(Level.CARD, device.card), (Level.CHIP, device.id)]
    return tuple(steps)


def _subtree(
    level: Level, name: str, paths: list[tuple[int, str, tuple[_Step, ...]]], depth: int
) -> Tree:
    groups: dict[_Step, list[tuple[int, str, tuple[_Step, ...]]]] = {}
    for member in paths:
        groups.setdefault(member[2][depth], []).append(member)
    children: list[Tree] = []
    for (child_level, child_name), members in groups.items():
        if child_level is Level.CHIP:
            children += [Tree(Level.CHIP, i, device_id=i, order=order) for order, i, _ in members]
        else:
            children.append(_subtree(child_level, child_name, members, depth + 1))
    return Tree(level, name, tuple(children))


def distances(tree: Tree, costs: Mapping[Level, int] = COSTS) -> dict[frozenset[str], int]:
    """The distance of every pair of devices; what placement minimises the sum of."""
    found: dict[frozenset[str], int] = {}

    def members(node: Tree) -> list[str]:
        if node.device_id is not None:
            return [node.device_id]
        seen: list[str] = []
        for child in node.children:
            below = members(child)
            for one in seen:
                for other in below:
                    found[frozenset((one, other))] = costs[node.level]
            seen += below
        return seen

    members(tree)
    return found
