"""`uncordon`: puts devices back into service."""

from __future__ import annotations

import argparse
import asyncio
import sys

from ..settings.options import Values
from . import node
from .cordon import add_targets, change, forget_faults, still_cordoned, targets_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_targets(parser)
    node.add_arguments(parser)


def run(values: Values, arguments: argparse.Namespace) -> int:
    """1 when a device is out of service still, or was not cordoned by `cordon`."""
    from ..devices.cordon_file import CordonFile
    from ..settings.settings import state_dir

    targets = targets_of(arguments.targets)
    values = node.effective(values, arguments)
    folder = state_dir(values)
    missing = change(CordonFile(folder), [(target, None) for target in targets])
    state = asyncio.run(node.look_once(node.monitor_of(values)))
    for target in targets:
        if forget_faults(folder, state, target) and target in missing:
            missing.remove(target)
    code = 0
    for target in targets:
        still = still_cordoned(state, target)
        if target not in missing:
            print(f"{target}: uncordoned")
        elif not still:
            print(f"{target}: was not cordoned", file=sys.stderr)
            code = 1
        for text in still:
            print(f"{target}: {text}", file=sys.stderr)
            code = 1
    return code
