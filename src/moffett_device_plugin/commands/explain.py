"""`explain`: which devices a request would get, and what decided it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doctor.holders import ask_holders, socket_of
from ..resources.pools import POLICIES
from ..runtime.errors import ConfigurationError
from ..settings.options import OPTIONS, Values
from ..settings.settings import resources
from . import node
from .output import console, print_json

# What looks at the node and what draws is imported when that is done: the parser of
# every command's help comes by here.
if TYPE_CHECKING:
    from rich.tree import Tree as Drawing

    from ..devices.health.reasons import Reason
    from ..devices.monitor import Monitor
    from ..devices.state import NodeState
    from ..doctor.holders import Held as Kubelet
    from ..resources.device_ids import DeviceIds
    from ..resources.pools import Resource, ResourcePool
    from .explanation import Branch, Chip, Choice, Explanation, Held, Shortage

#: `serve`'s own setting: in the plugin's pod, its variable says what the daemon does.
_PLACEMENT = OPTIONS["--placement"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", required=True, metavar="N", help="how many devices the container asks for")
    add("--resource", metavar="NAME", help="of which resource, where the node has several")
    add(
        "--available", metavar="ID,...",
        help="what there is to choose from (default: all that no pod holds)",
    )  # fmt: skip
    add("--must", metavar="ID,...", help="what has to be among them; counts as available")
    add(
        "--policy", choices=POLICIES,
        help=f"(default: the resource's own, by {_PLACEMENT.flag}, {_PLACEMENT.env} or the file)",
    )  # fmt: skip
    add("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    node.add_arguments(parser)


def run(values: Values, arguments: argparse.Namespace) -> int:
    """1 when the request cannot be met on this node."""
    from ..allocation.placement import PlacementError
    from ..resources.device_ids import DeviceIds
    from .explanation import explain, shortage

    size = _size(arguments.size)
    values = node.effective(values, arguments)
    configured = resources(values)
    socket = socket_of(values)
    state, kubelet = asyncio.run(_look(node.monitor_of(values), socket))
    if not (kubelet.known or arguments.available is not None or values["--simulate"]):
        print(f"pods are not known: {kubelet.why_not}", file=sys.stderr)
    pool = _pool(state, configured, kubelet, arguments.resource)
    held = _held(pool, kubelet, DeviceIds(state.snapshot.devices))
    known = [device.id for device in pool.advertised()]
    available = _ids("--available", arguments.available, known)
    must_include = _ids("--must", arguments.must, known) or ()
    try:
        explanation = explain(
            state,
            size,
            pool=pool,
            held=held,
            available=available,
            must_include=must_include,
            policy=arguments.policy or pool.resource.placement,
        )
    except PlacementError as error:
        print(f"moffett-device-plugin: {error}", file=sys.stderr)
        missing = shortage(state, pool, size, held)
        if missing.free_count < size and available is None and not must_include:
            if arguments.output == "json":
                print_json(describe_shortage(missing))
            else:
                print_shortage(missing)
        return 1
    if arguments.output == "json":
        print_json(describe(explanation))
    else:
        print_text(explanation)
    return 0


async def _look(monitor: Monitor, socket: Path | None) -> tuple[NodeState, Kubelet]:
    return await node.look_once(monitor), await ask_holders(socket)


def _pool(
    state: NodeState, configured: Sequence[Resource], kubelet: Kubelet, name: str | None
) -> ResourcePool:
    """The one that is named, or the only one, without what pods hold in another form."""
    from ..resources.conflicts import mark_conflicts
    from ..resources.device_ids import DeviceIds
    from ..resources.pools import ResourcePool, build_pools

    pools, _ = build_pools(state, configured)
    named = {pool.name: pool for pool in pools}
    if not named:
        return ResourcePool(name or str(configured[0]), configured[0], ())
    if name is None and len(named) > 1:
        remedy = f"the node has several resources; use one of {', '.join(named)}"
        raise ConfigurationError("--resource", "", remedy)
    if name is not None and name not in named:
        raise ConfigurationError("--resource", name, f"use one of {', '.join(named)}")
    pool = named[name] if name is not None else pools[0]
    return mark_conflicts(pool, kubelet.by_resource, DeviceIds(state.snapshot.devices))


def _held(pool: ResourcePool, kubelet: Kubelet, device_ids: DeviceIds) -> Held:
    """The pods of each advertised device: those that have it, or what is behind it in another
    form, as a card whose chips are of another resource."""
    everywhere = device_ids.holders(kubelet.by_resource)
    own = kubelet.by_resource.get(pool.name, {})
    held: dict[str, tuple[str, ...]] = {}
    for device in pool.advertised():
        who = [*own.get(device.id, ())]
        if device.held:
            who += [holder for i in device.device_ids for holder in everywhere.get(i, ())]
        if who:
            held[device.id] = tuple(dict.fromkeys(f"{one.namespace}/{one.pod}" for one in who))
    return held


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise ConfigurationError("--size", text, "use a number of devices, 1 or more")
    return int(text)


def _ids(key: str, text: str | None, known: Sequence[str]) -> tuple[str, ...] | None:
    if text is None:
        return None
    ids = tuple(part.strip() for part in text.split(",") if part.strip())
    for device_id in ids:
        if device_id not in known:
            from difflib import get_close_matches

            near = get_close_matches(device_id, known, 1, cutoff=0.0)
            remedy = f"the nearest on this node is {near[0]}" if near else "this node has no SPU"
            raise ConfigurationError(key, device_id, remedy)
    return ids


# -- for programs ---------------------------------------------------------------------


def describe(explanation: Explanation) -> dict[str, Any]:
    """The explanation as JSON has it; levels are named as in `Level`, in lower case."""
    second = explanation.runner_up
    return {
        "resource": explanation.resource,
        "size": explanation.size,
        "policy": explanation.policy,
        "available": explanation.available,
        "must": explanation.must_include,
        "chosen": _described(explanation.chosen),
        "runner_up": None if second is None else {
            **_described(second.choice),
            "why": {"code": second.why.code, "message": second.why.message},
        },
        "tree": _described_branch(explanation.tree),
    }  # fmt: skip


def _described(choice: Choice) -> dict[str, Any]:
    return {
        "ids": choice.ids,
        "distance": choice.score.distance,
        "fragmentation": {
            level.name.lower(): amount for level, amount in choice.score.fragmentation.items()
        },
        "by_level": {
            level.name.lower(): {
                "pairs": pairs.count,
                "cost": pairs.cost,
                "distance": pairs.distance,
            }
            for level, pairs in choice.by_level.items()
        },
    }


def _described_branch(branch: Branch) -> dict[str, Any]:
    described: dict[str, Any] = {"level": branch.level.name.lower(), "name": branch.name}
    if branch.chip is None:
        return described | {
            "total": branch.total,
            "left": branch.left,
            "children": [_described_branch(child) for child in branch.children],
        }
    return described | {
        "state": branch.chip.state.value,
        "must": branch.chip.must_include,
        "reasons": _described_reasons(branch.chip.reasons),
        "holders": branch.chip.holders,
    }


def _described_reasons(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code, "message": r.message, "severity": r.severity.value} for r in reasons]


def describe_shortage(missing: Shortage) -> dict[str, Any]:
    """Why there is no room, as JSON has it."""
    return {
        "resource": missing.resource,
        "size": missing.size,
        "free": {"count": missing.free_count, "by_card": dict(missing.free)},
        "unhealthy": {
            device_id: _described_reasons(reasons)
            for device_id, reasons in missing.unhealthy.items()
        },
        "held": dict(missing.held),
        "pods_to_end": missing.to_end if missing.enough else None,
    }


# -- for people -----------------------------------------------------------------------


def print_text(explanation: Explanation) -> None:
    from rich.tree import Tree as Drawing

    out = console()
    label, below = _folded(explanation.tree)
    drawing = Drawing(label)
    _draw(drawing, below)
    out.print(drawing)

    def tell(title: str, *lines: str) -> None:
        # Not wrapped: a long set is for copying.
        for number, line in enumerate(lines):
            out.print(f"[bold]{'' if number else title:<9}[/]  {line}", soft_wrap=True)

    out.print()
    tell("chosen", *_lines(explanation.chosen))
    second = explanation.runner_up
    if second is None:
        tell("runner-up", "none: no other set meets the request")
    else:
        from rich.markup import escape

        tell("runner-up", *_lines(second.choice), f"lost: {escape(second.why.message)}")


def print_shortage(missing: Shortage) -> None:
    """What is free, who holds the rest, and which pods would have to end."""
    cards = ", ".join(f"{count} on card {card}" for card, count in missing.free.items())
    count = f"{missing.free_count} of {missing.resource}"
    lines = [("free", f"{count}: {cards}" if cards else count)]
    for device_id, reasons in missing.unhealthy.items():
        why = "; ".join(f"{reason.code}: {reason.message}" for reason in reasons)
        lines.append(("unhealthy", f"{device_id}: {why}"))
    for device_id, pods in missing.held.items():
        lines.append(("held", f"{device_id}: {', '.join(pods)}"))
    if missing.enough:
        lines.append(("remedy", f"there is room when {', '.join(missing.to_end)} end"))
    else:
        healthy = missing.free_count + len(missing.held)
        lines.append(("remedy", f"only {healthy} here are healthy: no pod that ends is enough"))
    out = console()
    for title, text in lines:
        out.print(f"{title:<9}  {text}", markup=False, soft_wrap=True)


def _draw(drawing: Drawing, branches: tuple[Branch, ...]) -> None:
    for branch in branches:
        label, below = _folded(branch)
        _draw(drawing.add(label), below)


def _folded(branch: Branch) -> tuple[str, tuple[Branch, ...]]:
    """One line for a branch and for those below that group nothing more than it does,
    and what is to be drawn below that line."""
    from rich.markup import escape

    from ..allocation.topology import Level
    from .explanation import NAMES

    names: list[str] = []
    while branch.chip is None:
        single = len(branch.children) == 1
        if branch.level is Level.MACHINE:
            names.append(branch.name)
        elif not (single and branch.level is Level.SWITCH):  # a port with one card, say
            names.append(f"{NAMES[branch.level]} {branch.name}")
        if not single:
            name = f"[cyan]{escape(', '.join(names))}[/]"
            return f"{name}  [dim]{branch.left} of {branch.total} left[/]", branch.children
        branch = branch.children[0]
    if not names:
        return _chip_text(branch.chip), ()
    return f"[cyan]{escape(', '.join(names))}:[/] {_chip_text(branch.chip)}", ()


def _chip_text(chip: Chip) -> str:
    from rich.markup import escape

    from .explanation import ChipState

    style, text = {
        ChipState.CHOSEN: (
            "bold green",
            "chosen, as it must be" if chip.must_include else "chosen",
        ),
        ChipState.AVAILABLE: ("default", "available"),
        ChipState.UNHEALTHY: ("red", "unhealthy"),
        ChipState.HELD: ("yellow", f"held by {', '.join(chip.holders)}"),
        ChipState.UNAVAILABLE: ("dim", "not available"),
    }[chip.state]
    if chip.state is ChipState.UNHEALTHY:
        text = ": ".join([text, ", ".join(f"{r.code} ({r.message})" for r in chip.reasons)])
    return f"{chip.id}  [{style}]{escape(text)}[/]"


def _lines(choice: Choice) -> list[str]:
    """The set, what it costs, and what it leaves behind."""
    from .explanation import NAMES

    fragments = [f"{NAMES[level]} {amount}" for level, amount in choice.score.fragmentation.items()]
    return [
        ", ".join(choice.ids),
        f"distance {choice.score.distance}{_sum(choice)}",
        f"fragmentation by {', '.join(fragments)}",
    ]


def _sum(choice: Choice) -> str:
    from ..allocation.topology import Level

    where = {
        Level.CARD: "on one card",
        Level.SWITCH: "below one switch",
        Level.ROOT_COMPLEX: "in one root complex",
        Level.NUMA_NODE: "on one NUMA node",
        Level.MACHINE: "across NUMA nodes",
    }
    parts = [
        f"{pairs.count} pair{'' if pairs.count == 1 else 's'} {where[level]} at {pairs.cost}"
        for level, pairs in choice.by_level.items()
    ]
    return f" = {' + '.join(parts)}" if parts else ""
