"""`simulate`: injects faults into a simulated node, and clears them, from outside."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import ConfigurationError
from ..settings.options import Values
from ..settings.types import seconds
from . import node
from .output import print_json

if TYPE_CHECKING:
    from ..hardware.simulation import Chip, Faults, Layout

ACTIONS = {
    "status": "print the faults that are in force",
    "inject": "give a device (or the node) a fault",
    "heal": "clear all faults of a device (or the node)",
    "remove": "take a device off the bus",
    "restore": "put it back, as after a reboot",
    "reboot": "take a device's whole card off the bus and put it back",
}
RENAMED_ACTIONS = {"fail": "inject"}
_SECONDS = seconds(0, 3600)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = "; ".join(f"{name}: {what}" for name, what in ACTIONS.items())
    parser.add_argument("action", metavar="ACTION", help=actions)
    parser.add_argument("target", nargs="?", metavar="BUS_ID", help="a device's bus id, or node")
    parser.add_argument("fault", nargs="?", metavar="FAULT", help="for inject; see status")
    parser.add_argument(
        "--seconds", default="2", help="for reboot: how long the card is away (default: 2)"
    )
    node.add_arguments(parser)


def run(values: Values, arguments: argparse.Namespace) -> int:
    from ..hardware.simulation import NODE, build
    from ..settings.settings import hardware_settings

    action, target = _action(arguments.action), arguments.target
    away: float = _SECONDS.parse("--seconds", arguments.seconds)
    settings = hardware_settings(node.effective(values, arguments))
    if not settings.simulate:
        raise ConfigurationError(
            "--simulate", "", "say how the node is simulated, with the value that `serve` has"
        )
    layout, path = build(settings.simulate), settings.simulate_control
    faults = _read(path)
    if action == "status":
        print_json(_status(layout, faults))
        return 0
    card = layout.card_of(target or "")
    if not card and not (target == NODE and action in ("inject", "heal")):
        some = ", ".join(chip.bus_id for chip in layout.chips[:3])
        raise ConfigurationError("BUS_ID", target, f"use one of the node's, such as {some}")
    if action == "reboot":
        _reboot(path, faults, card, away)
        return 0
    if action == "inject":
        faults, done = _injected(faults, target, arguments.fault)
    elif action == "heal":
        faults, done = faults.without(target), f"{target}: no faults"
    elif action == "remove":
        faults, done = faults.with_fault(target, "gone"), f"{target}: off the bus"
    else:
        faults, done = faults.rebooted(target), f"{target}: back on the bus, without faults"
    _write(path, faults)
    _say(done)
    return 0


def _action(name: str) -> str:
    if name in RENAMED_ACTIONS:
        raise ConfigurationError("ACTION", name, f"its name is now {RENAMED_ACTIONS[name]}")
    if name not in ACTIONS:
        raise ConfigurationError("ACTION", name, f"use one of {', '.join(ACTIONS)}")
    return name


def _status(layout: Layout, faults: Faults) -> dict[str, object]:
    from ..hardware.simulation import CHIP_FAULTS, NODE, NODE_FAULTS

    return {
        "devices": {chip.bus_id: sorted(faults.of(chip.bus_id)) for chip in layout.chips},
        NODE: sorted(faults.of(NODE)),
        "device faults": dict(CHIP_FAULTS),
        "node faults": dict(NODE_FAULTS),
    }


def _injected(faults: Faults, target: str, fault: str | None) -> tuple[Faults, str]:
    from ..hardware.simulation import CHIP_FAULTS, NODE, NODE_FAULTS

    allowed = NODE_FAULTS if target == NODE else CHIP_FAULTS
    if fault is None or fault not in allowed:
        raise ConfigurationError("FAULT", fault, f"use one of {', '.join(allowed)}")
    return faults.with_fault(target, fault), f"{target}: {fault}: {allowed[fault]}"


def _reboot(path: Path, faults: Faults, card: tuple[Chip, ...], away: float) -> None:
    """The card is put back however the time that it is away ends."""
    gone = faults
    for chip in card:
        gone = gone.with_fault(chip.bus_id, "gone")
        faults = faults.rebooted(chip.bus_id)
    try:
        _write(path, gone)
        _say(f"card {card[0].serial}: off the bus for {away:g} s")
        time.sleep(away)
    finally:
        _write(path, faults)
    _say(f"card {card[0].serial}: back on the bus, without faults")


def _read(path: Path) -> Faults:
    from ..hardware.simulated import read_control

    try:
        return read_control(path)
    except ValueError as error:
        raise ConfigurationError("--simulate-control", str(path), f"{error}; delete it") from error
    except OSError as error:
        remedy = f"{error.strerror}; name a file that can be read"
        raise ConfigurationError("--simulate-control", str(path), remedy) from error


def _write(path: Path, faults: Faults) -> None:
    from ..hardware.simulated import write_control

    try:
        write_control(path, faults)
    except OSError as error:
        remedy = f"{error.strerror}; name a file in a directory that can be written to"
        raise ConfigurationError("--simulate-control", str(path), remedy) from error


def _say(text: str) -> None:
    print(text, flush=True)
