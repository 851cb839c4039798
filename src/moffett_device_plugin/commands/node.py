"""What `serve` would use on this node, for the commands that look at the same node."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from ..runtime.errors import ConfigurationError
from ..settings.options import Values

if TYPE_CHECKING:
    from ..devices.cordons import Cordons
    from ..devices.monitor import Monitor, PollIntervals
    from ..devices.state import NodeState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--node-label", action="append", metavar="KEY=VALUE", default=[],
        help="a label of the node, for sections of the file that need one (repeatable)",
    )  # fmt: skip


def effective(values: Values, arguments: argparse.Namespace) -> Values:
    """The values over the configuration file, as `serve` has them. Raises
    ConfigurationError for whatever is wrong in the file, as `serve` does. Labels of the
    node are not asked for: what depends on others than `--node-label` is left out."""
    path = values["--config"]
    labels = dict(_label(text) for text in arguments.node_label)
    if path is None:
        return values
    from ..settings.load import read
    from ..settings.sections import NodeFacts

    configuration = read(path)
    node = NodeFacts(values["--node-name"], labels)
    configuration.settings(values, node)
    if configuration.needs_labels and not labels:
        print(
            f"{path} has sections by node label: the labels of this node are not known here;"
            " give them with --node-label",
            file=sys.stderr,
        )
    return configuration.values(values, node)


def monitor_of(values: Values, intervals: PollIntervals | None = None) -> Monitor:
    """Raises ConfigurationError. Its log is not shown: the command prints what it says."""
    from ..devices.fault_record import FaultFile, FaultRecorder
    from ..devices.monitor import Monitor, PollIntervals
    from ..hardware.factory import create_hardware
    from ..runtime.log import quiet
    from ..settings.settings import hardware_settings, health_policy, state_dir

    hardware, policy = hardware_settings(values), health_policy(values)
    quiet()
    monitor = Monitor(
        create_hardware(hardware), policy, time.monotonic, intervals or PollIntervals()
    )
    cordons_of(values, monitor).read()
    FaultRecorder(monitor, FaultFile(state_dir(values))).restore()
    return monitor


def cordons_of(values: Values, monitor: Monitor) -> Cordons:
    """What keeps the monitor's cordons to those of the daemon."""
    from ..devices.cordon_file import CordonFile
    from ..devices.cordons import Cordons
    from ..runtime.watchable import Watchable
    from ..settings.settings import state_dir

    annotation: Watchable[str | None] | None = None
    if values["--cordon-annotation"]:
        annotation = Watchable(None)  # what the daemon has kept of it is shown
    return Cordons(monitor, CordonFile(state_dir(values)), values["--cordon"], annotation)


async def look_once(monitor: Monitor) -> NodeState:
    """The node as one look at the bus and one run of mx-smi show it."""
    await monitor.rescan()
    await monitor.ask_smi()
    return monitor.state.value


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigurationError("--node-label", text, "use KEY=VALUE")
    return key, value
