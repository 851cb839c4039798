"""`explain`: which devices a request would get, and what decided it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

from ..resources.pools import POLICIES
from ..runtime.errors import ConfigurationError
from ..settings.options import OPTIONS, Values
from . import node
from .output import console, print_json

# What looks at the node and what draws is imported when that is done: the parser of
# every command's help comes by here.
if TYPE_CHECKING:
    from rich.tree import Tree as Drawing

    from ..devices.state import NodeState
    from .explanation import Branch, Chip, Choice, Explanation

#: `serve`'s own setting: in the plugin's pod, its variable says what the daemon does.
_PLACEMENT = OPTIONS["--placement"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", required=True, metavar="N", help="how many devices the container asks for")
    add("--available", metavar="ID,...", help="what there is to choose from (default: all)")
    add("--must", metavar="ID,...", help="what has to be among them; counts as available")
    add(
        "--policy", choices=POLICIES,
        help=f"(default: {_PLACEMENT.env}, else {_PLACEMENT.default})",
    )  # fmt: skip
    add("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    node.add_arguments(parser)


def run(values: Values, arguments: argparse.Namespace) -> int:
    from ..allocation.placement import PlacementError
    from .explanation import explain

    size = _size(arguments.size)
    values = node.effective(values, arguments)
    policy = arguments.policy or values[_PLACEMENT]
    state = asyncio.run(node.look_once(node.monitor_of(values)))
    available = _ids("--available", arguments.available, state)
    must_include = _ids("--must", arguments.must, state) or ()
    try:
        explanation = explain(
            state, size, available=available, must_include=must_include, policy=policy
        )
    except PlacementError as error:
        print(f"moffett-device-plugin: {error}", file=sys.stderr)
        return 1
    if arguments.output == "json":
        print_json(describe(explanation))
    else:
        print_text(explanation)
    return 0


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise ConfigurationError("--size", text, "use a number of devices, 1 or more")
    return int(text)


def _ids(key: str, text: str | None, state: NodeState) -> tuple[str, ...] | None:
    if text is None:
        return None
    ids = tuple(part.strip() for part in text.split(",") if part.strip())
    known = [device.id for device in state.snapshot.devices]
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
        "reasons": [
            {"code": r.code, "message": r.message, "severity": r.severity.value}
            for r in branch.chip.reasons
        ],
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
