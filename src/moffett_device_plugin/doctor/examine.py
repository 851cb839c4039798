"""From settings to a site: the first look at the node, within a deadline."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..devices.monitor import Monitor
from ..hardware.factory import create_hardware
from ..podresources.client import SOCKET
from ..resources.device_list_strategy import DeviceListStrategy
from ..resources.pools import Resource
from ..runtime.errors import ConfigurationError
from ..settings.options import CONFIG_OPTION, FILE_OPTIONS, RESOURCE_OPTIONS, SERVE_OPTIONS, Values
from ..settings.settings import hardware_settings, health_policy, resources
from .context import Context, Environment, Options
from .holders import Held, ask_holders, socket_of
from .run import start

ALL_OPTIONS = (CONFIG_OPTION, *RESOURCE_OPTIONS, *FILE_OPTIONS)
#: Seconds for one look at the bus.
LOOK_DEADLINE = 5.0
HOLDERS_DEADLINE = 5.0
_KUBELET_DIR, _NODE_NAME, _STRATEGIES, _CDI_DIR = (
    next(option for option in SERVE_OPTIONS if option.flag == flag)
    for flag in ("--kubelet-dir", "--node-name", "--device-list-strategy", "--cdi-dir")
)


def examine(
    arguments: argparse.Namespace, environment: Mapping[str, str], words: Sequence[str]
) -> Context:
    """Raises ConfigurationError for a wrong flag. What else is wrong becomes a finding:
    it is what keeps the daemon from starting, and the doctor must not share its fate."""
    wrong: list[ConfigurationError] = []
    values = _right_variables(arguments, environment, wrong)
    values, by_labels = _with_file(values, wrong)
    try:
        offered = resources(values)
    except ConfigurationError as error:
        wrong.append(error)
        offered = (Resource(),)
    context = Context(
        hardware=hardware_settings(values),
        policy=health_policy(values),
        kubelet_dir=values[_KUBELET_DIR],
        pod_resources=socket_of(values) or SOCKET,
        resources=offered,
        device_list_strategy=DeviceListStrategy(values[_STRATEGIES]),
        cdi_dir=values[_CDI_DIR],
        place=Environment(environment=dict(environment), uid=os.geteuid()),
        options=Options(arguments.list_and_watch, not arguments.no_open),
        wrong_settings=tuple(wrong),
        given={option.env: values.given(option) for option in ALL_OPTIONS},
        by_labels=by_labels,
        arguments=words,
    )
    return _looked_at(context)


def _right_variables(
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
    wrong: list[ConfigurationError],
) -> Values:
    """The values without the variables that cannot be."""
    right = dict(environment)
    for option in ALL_OPTIONS:
        values = Values(arguments, right)
        if values.override(option) is None:
            continue  # what a default means can depend on other settings
        try:
            values[option]
        except ConfigurationError as error:
            if values.given(option).origin == option.flag:
                raise
            wrong.append(error)
            del right[option.env]
    return Values(arguments, right)


def _with_file(values: Values, wrong: list[ConfigurationError]) -> tuple[Values, bool]:
    """The values over the configuration file, if there is one and it is right."""
    path = values[CONFIG_OPTION]
    if path is None:
        return values, False
    from ..settings.load import read
    from ..settings.sections import NodeFacts

    try:
        file = read(path)
        file.check(values)
        here = file.values(values, NodeFacts(values[_NODE_NAME]))
        for option in FILE_OPTIONS:
            here[option]  # which looks at this node, for directories
    except ConfigurationError as error:
        wrong.append(error)
        return values, False
    return here, file.needs_labels


def _looked_at(context: Context) -> Context:
    """With the node's state, and who holds its devices, as far as they can be had."""
    asked = start(lambda: asyncio.run(ask_holders(context.pod_resources)), HOLDERS_DEADLINE)
    monitor = Monitor(create_hardware(context.hardware), context.policy, time.monotonic)
    error: str | None = None
    try:
        start(monitor.rescan, LOOK_DEADLINE).result()
    except TimeoutError:
        error = f"a look at the bus ({context.sys}) did not end in {LOOK_DEADLINE:g} s"
    else:
        # As many runs as it may take to find out how it wants to be asked.
        try:
            start(lambda: asyncio.run(monitor.ask_smi()), 6 * context.hardware.smi_timeout).result()
        except TimeoutError:
            error = "mx-smi did not come to an end"
    try:
        held = asked.result()
    except TimeoutError:
        held = Held(why_not="no answer in time")
    return replace(context, state=monitor.state.value, state_error=error, held=held)
