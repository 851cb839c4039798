"""`devices`: the devices of the node, as a table for people or JSON for programs."""

from __future__ import annotations

import argparse
import asyncio

from ..settings.options import Values
from . import node
from .output import console, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="(default: table)"
    )
    node.add_arguments(parser)


def run(values: Values, arguments: argparse.Namespace) -> int:
    monitor = node.monitor_of(node.effective(values, arguments))
    state = asyncio.run(node.look_once(monitor))
    if arguments.output == "json":
        from ..devices.description import describe

        print_json([describe(device, state) for device in state.snapshot.devices])
        return 0
    from .device_rows import DEVICES, grouped, rows_of
    from .device_table import summary, table_of

    out = console()
    rows = rows_of(state)
    if rows:
        width = out.width if out.is_terminal else None
        out.print(table_of(grouped(rows), DEVICES, width=width, wrap=True))
    out.print(summary(state), soft_wrap=True)
    return 0
