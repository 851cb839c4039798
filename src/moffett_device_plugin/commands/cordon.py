"""`cordon` and `uncordon`: take devices out of service, and put them back."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from ..runtime.errors import ConfigurationError
from ..settings.options import Values
from . import node

if TYPE_CHECKING:
    from pathlib import Path

    from ..devices.cordon_file import CordonFile
    from ..devices.state import NodeState

#: File systems that end with the container or the machine.
_NOT_KEPT = ("overlay", "tmpfs", "ramfs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_targets(parser)
    parser.add_argument(
        "--reason", default="", metavar="TEXT", help="why, for whoever reads it later"
    )
    node.add_arguments(parser)


def add_targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets", nargs="+", metavar="ID",
        help="a device (0000:36:00.0), a card (card-0000:34:00.0), or all",
    )  # fmt: skip


def run(values: Values, arguments: argparse.Namespace) -> int:
    from ..devices.cordon_file import CordonFile
    from ..devices.health.cordon import Cordon, without_device
    from ..settings.settings import state_dir

    targets = targets_of(arguments.targets)
    values = node.effective(values, arguments)
    file = CordonFile(state_dir(values))
    change(file, [(target, arguments.reason) for target in targets])
    state = asyncio.run(node.look_once(node.monitor_of(values)))
    missing = without_device(state.snapshot.devices, [Cordon(t, "") for t in targets])
    for target in targets:
        print(f"{target}: cordoned")
    for cordon in missing:
        _warn(f"{cordon.target} is not on this node now; the cordon holds when it comes")
    _warn_if_not_kept(file)
    return 0


def targets_of(texts: list[str]) -> list[str]:
    from ..devices.health.cordon import parse_targets

    targets, wrong = parse_targets(",".join(texts))
    if wrong or not targets:
        text = wrong[0] if wrong else ",".join(texts)
        remedy = "use the ID of a device or card, such as 0000:36:00.0, or all"
        raise ConfigurationError("ID", text, remedy)
    return list(targets)


def change(file: CordonFile, cordons: list[tuple[str, str | None]]) -> list[str]:
    """Adds cordons; those whose reason is None are removed. Returns what was not there."""
    from ..runtime.state_file import StateFileError

    missing: list[str] = []
    try:
        for target, reason in cordons:
            if reason is not None:
                file.add(target, reason)
            elif not file.remove(target):
                missing.append(target)
    except StateFileError as error:
        remedy = "correct the file, or remove it and cordon again"
        raise ConfigurationError("--state-dir", str(error), remedy) from error
    except OSError as error:
        remedy = (
            f"{error.strerror}; run it in the plugin's pod, where a directory of the host is"
            " mounted there, or as root on the host"
        )
        raise ConfigurationError("--state-dir", str(file.folder), remedy) from error
    return missing


def forget_faults(folder: Path, state: NodeState, target: str) -> bool:
    """Whether devices of `target` had faults that were counted: they are forgotten."""
    from ..devices.fault_record import FaultFile
    from ..devices.health.cordon import ALL
    from ..runtime.state_file import StateFileError

    try:
        return FaultFile(folder).forget(None if target == ALL else [*_ids(state, target), target])
    except (OSError, StateFileError) as error:
        _warn(f"the faults of {target} are not forgotten: {error}")
        return False


def _ids(state: NodeState, target: str) -> set[str]:
    from ..devices.cards import cards_of
    from ..devices.health.cordon import ALL

    devices = state.snapshot.devices
    ids = {device.id for device in devices if target in (device.id, ALL)}
    return ids | {d.id for c in cards_of(devices) if c.id == target for d in c.devices}


def still_cordoned(state: NodeState, target: str) -> list[str]:
    """Why devices of `target` are out of service still, each as one text."""
    from ..devices.health.cordon import CORDONED

    ids = _ids(state, target)
    return [
        f"{device_id} is cordoned {reason.message}"
        for device_id in sorted(ids)
        for reason in state.health_statuses[device_id].reasons
        if reason.code == CORDONED
    ]


def _warn_if_not_kept(file: CordonFile) -> None:
    from ..hardware.mounts import file_system_of, mountinfo

    if (kind := file_system_of(file.folder, mountinfo())) in _NOT_KEPT:
        _warn(
            f"{file.folder} is on {kind} and is not kept; mount a directory of the host there, or"
            " set --state-dir to one"
        )


def _warn(text: str) -> None:
    print(f"moffett-device-plugin: {text}", file=sys.stderr)
