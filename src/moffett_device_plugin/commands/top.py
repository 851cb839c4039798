"""`top`: the node's devices as they are now, and who holds them."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from ..runtime.errors import ConfigurationError
from ..settings.options import Values
from ..settings.types import seconds
from . import node
from .device_rows import SORTS
from .output import print_json

if TYPE_CHECKING:
    from pathlib import Path

    from ..devices.cordons import Cordons
    from ..devices.monitor import Monitor
    from ..doctor.holders import Held
    from .top_view import Scene

_INTERVAL = seconds(0.2, 3600)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--interval", default="2", metavar="SECONDS", help="between two looks (default: 2)")
    add("--sort", choices=SORTS, default="index", help="(default: index)")
    add("--once", action="store_true", help="look once, print it, and end")
    add(
        "-o", "--output", choices=("text", "json"), default="text",
        help="json needs --once (default: text)",
    )  # fmt: skip
    node.add_arguments(parser)


def run(values: Values, arguments: argparse.Namespace) -> int:
    from ..devices.monitor import PollIntervals
    from ..doctor.holders import socket_of

    interval: float = _INTERVAL.parse("--interval", arguments.interval)
    if arguments.output == "json" and not arguments.once:
        raise ConfigurationError("--output", "json", "json is for one look: add --once")
    values = node.effective(values, arguments)
    socket = socket_of(values)
    monitor = node.monitor_of(values, PollIntervals(smi=interval))
    cordons = node.cordons_of(values, monitor)
    asyncio.run(_top(monitor, cordons, socket, arguments, interval))
    return 0


async def _top(
    monitor: Monitor,
    cordons: Cordons,
    socket: Path | None,
    arguments: argparse.Namespace,
    interval: float,
) -> None:
    if arguments.once:
        await node.look_once(monitor)
        await _show_once(monitor, socket, arguments)
        return
    from rich.console import Console

    console = Console(highlight=False)
    live = console.is_terminal and not console.is_dumb_terminal
    work = _live(monitor, socket, arguments, interval) if live else _plain(
        monitor, socket, arguments, interval
    )  # fmt: skip
    task = asyncio.ensure_future(work)
    following = asyncio.ensure_future(cordons.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        pass
    finally:
        following.cancel()


# -- one look, or one after the other -------------------------------------------------


async def _show_once(monitor: Monitor, socket: Path | None, arguments: argparse.Namespace) -> None:
    from ..doctor.holders import ask_holders

    held = await ask_holders(socket)
    if arguments.output == "json":
        print_json(described(monitor, held))
        return
    from .top_view import View, print_plain

    if held.why_not is not None:
        print(f"pods are not known: {held.why_not}", file=sys.stderr)
    print_plain(_scene(monitor, held), View(arguments.sort))


def described(monitor: Monitor, held: Held) -> dict[str, object]:
    """Each device as `devices -o json` has it, with its holders."""
    from ..devices.description import describe
    from ..doctor.holders import by_device

    state = monitor.state.value
    holders = by_device(held, state.snapshot)
    return {
        "pods_unknown": held.why_not,
        "devices": [
            {
                **describe(device, state),
                "holders": [
                    {"namespace": h.namespace, "pod": h.pod, "container": h.container}
                    for h in holders.get(device.id, ())
                ],
            }
            for device in state.snapshot.devices
        ],
    }


def _scene(monitor: Monitor, held: Held) -> Scene:
    from ..doctor.holders import by_device
    from .device_rows import rows_of
    from .top_view import Scene

    state = monitor.state.value
    return Scene(state, rows_of(state, by_device(held, state.snapshot)), held.why_not)


async def _plain(
    monitor: Monitor, socket: Path | None, arguments: argparse.Namespace, interval: float
) -> None:
    """A table each interval, for a pipe; why pods are not known is said once."""
    from ..doctor.holders import ask_holders
    from .top_view import View, print_plain

    told: str | None = None
    while True:
        await node.look_once(monitor)
        held = await ask_holders(socket)
        if held.why_not is not None and held.why_not != told:
            told = held.why_not
            print(f"pods are not known: {told}", file=sys.stderr)
        print_plain(_scene(monitor, held), View(arguments.sort))
        sys.stdout.flush()
        await asyncio.sleep(interval)


# -- on a terminal --------------------------------------------------------------------


async def _live(
    monitor: Monitor, socket: Path | None, arguments: argparse.Namespace, interval: float
) -> None:
    from .top_live import LiveTop
    from .top_view import View

    await LiveTop(monitor, socket, View(arguments.sort), interval).run()
