"""`simulate`: breaks and mends the devices of a simulated node, from outside."""

from __future__ import annotations

import argparse
import json
import time

from ..runtime.errors import ConfigurationError
from ..settings.settings import HARDWARE_OPTIONS, Values, add_options, hardware_settings

_ACTIONS = {
    "status": "print what is wrong now",
    "fail": "give a device (or the node) a fault",
    "heal": "take all faults of a device (or the node) away",
    "remove": "take a device off the bus",
    "restore": "put it back, as after a reboot",
    "reboot": "take a device's whole card off the bus and put it back",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=_ACTIONS, help="; ".join(
        f"{name}: {what}" for name, what in _ACTIONS.items()
    ))  # fmt: skip
    parser.add_argument("target", nargs="?", metavar="BUS_ID", help="a device's bus id, or node")
    parser.add_argument("fault", nargs="?", metavar="FAULT", help="for fail; see status")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="for reboot: how long it is away (default: 2)"
    )
    add_options(parser, HARDWARE_OPTIONS)


def run(values: Values, arguments: argparse.Namespace) -> int:
    from ..hardware.simulated import read_control, write_control
    from ..hardware.simulation import CHIP_FAULTS, NODE, NODE_FAULTS, build

    settings = hardware_settings(values)
    if not settings.simulate:
        raise ConfigurationError(
            "--simulate", "", "say how the node is simulated, as `serve` was told"
        )
    layout = build(settings.simulate)
    path = settings.simulate_control
    try:
        faults = read_control(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError("--simulate-control", str(path), f"{error}; delete it") from error
    action, target = arguments.action, arguments.target
    if action == "status":
        known = {"device faults": dict(CHIP_FAULTS), "node faults": dict(NODE_FAULTS)}
        devices = {chip.bus_id: sorted(faults.of(chip.bus_id)) for chip in layout.chips}
        print(json.dumps({"devices": devices, NODE: sorted(faults.of(NODE)), **known}, indent=2))
        return 0
    card = layout.card_of(target or "")
    if not card and not (target == NODE and action in ("fail", "heal")):
        some = ", ".join(chip.bus_id for chip in layout.chips[:3])
        raise ConfigurationError("BUS_ID", target, f"use one of the node's, such as {some}")
    if action == "fail":
        allowed = NODE_FAULTS if target == NODE else CHIP_FAULTS
        if arguments.fault not in allowed:
            raise ConfigurationError("FAULT", arguments.fault, f"use one of {', '.join(allowed)}")
        faults = faults.with_fault(target, arguments.fault)
    elif action == "heal":
        faults = faults.without(target)
    elif action == "remove":
        faults = faults.with_fault(target, "gone")
    elif action == "restore":
        faults = faults.rebooted(target)
    else:
        for chip in card:
            faults = faults.with_fault(chip.bus_id, "gone")
        write_control(path, faults)
        time.sleep(arguments.seconds)
        for chip in card:
            faults = faults.rebooted(chip.bus_id)
    write_control(path, faults)
    return 0
