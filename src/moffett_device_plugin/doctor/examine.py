"""From settings to a context: one look at the node, within a deadline."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..devices.cordon_file import CordonFile
from ..devices.cordons import configured, kept_cordons
from ..devices.monitor import Monitor
from ..hardware.factory import create_hardware
from ..resources.device_list_strategy import DeviceListStrategy
from ..resources.pools import Resource
from ..runtime.errors import ConfigurationError
from ..runtime.state_file import StateFileError
from ..settings.options import FILE_OPTIONS, OPTIONS, Values, check_variables
from ..settings.settings import hardware_settings, health_policy, resources, state_dir
from .context import Context, Environment, Options
from .holders import Held, ask_holders, socket_of
from .run import start

#: Seconds for one scan of the bus, and for the kubelet's list of pods.
SCAN_DEADLINE = 5.0
HOLDERS_DEADLINE = 5.0
#: mx-smi may be run in several forms until it understands one.
SMI_RUNS = 6


def examine(
    arguments: argparse.Namespace, environment: Mapping[str, str], words: Sequence[str]
) -> Context:
    """Raises ConfigurationError for a wrong flag. Any other wrong setting becomes a
    finding: the daemon does not start with it, and the doctor has to."""
    wrong: list[ConfigurationError] = []
    values = _right_variables(arguments, environment, wrong)
    values, by_labels = _with_file(values, wrong)
    try:
        configured = resources(values)
    except ConfigurationError as error:
        wrong.append(error)
        configured = (Resource(),)
    context = Context(
        hardware=hardware_settings(values),
        policy=health_policy(values),
        kubelet_dir=values["--kubelet-dir"],
        pod_resources=socket_of(values),
        resources=tuple(one for one in configured if one.api == "device-plugin"),
        device_list_strategy=DeviceListStrategy(values["--device-list-strategy"]),
        cdi_dir=values["--cdi-dir"],
        dra=any(one.api == "dra" for one in configured),
        plugins_registry=values["--plugins-registry-dir"],
        state_dir=state_dir(values),
        cordon=values["--cordon"],
        cordon_annotation=values["--cordon-annotation"],
        environment=Environment(variables=dict(environment), uid=os.geteuid()),
        options=Options(arguments.list_and_watch, not arguments.no_open),
        wrong_settings=tuple(wrong),
        given={option.env: values.given(option) for option in OPTIONS.values()},
        by_labels=by_labels,
        arguments=words,
    )
    return _examined(context)


def _right_variables(
    arguments: argparse.Namespace, environment: Mapping[str, str], wrong: list[ConfigurationError]
) -> Values:
    """The values without the variables that are not valid."""
    right = dict(environment)
    try:
        check_variables(environment)
    except ConfigurationError as error:
        wrong.append(error)
    for option in OPTIONS.values():
        values = Values(arguments, right)
        if values.override(option) is None:
            continue  # the meaning of a default can depend on other settings
        try:
            values[option]
        except ConfigurationError as error:
            if values.given(option).origin == option.flag:
                raise
            wrong.append(error)
            del right[option.env]
    return Values(arguments, right)


def _with_file(values: Values, wrong: list[ConfigurationError]) -> tuple[Values, bool]:
    """The values over the configuration file, if there is one and it is valid."""
    path = values["--config"]
    if path is None:
        return values, False
    from ..settings.load import read
    from ..settings.sections import NodeFacts

    try:
        file = read(path)
        file.check(values)
        here = file.values(values, NodeFacts(values["--node-name"]))
        for option in FILE_OPTIONS:
            here[option]  # which checks that directories exist
    except ConfigurationError as error:
        wrong.append(error)
        return values, False
    return here, file.needs_labels


def _examined(context: Context) -> Context:
    """With the node's state and the holders of its devices, as far as they are available."""
    asked = start(lambda: asyncio.run(ask_holders(context.pod_resources)), HOLDERS_DEADLINE)
    try:
        hardware = create_hardware(context.hardware)
    except OSError:  # a directory that may not be read: the check of the cards says so
        return context
    monitor = Monitor(hardware, context.policy, time.monotonic)
    cordons, cordon_error = configured(context.cordon), ""
    try:
        cordons += kept_cordons(CordonFile(context.state_dir), annotated=context.cordon_annotation)
    except StateFileError as failed:
        cordon_error = str(failed)
    monitor.cordon(cordons)
    error: str | None = None
    seconds = 0.0
    try:
        start(lambda: asyncio.run(monitor.rescan()), SCAN_DEADLINE).result()
    except TimeoutError:
        error = f"a scan of the bus ({context.sys}) did not end in {SCAN_DEADLINE:g} s"
    else:
        began = time.monotonic()
        deadline = SMI_RUNS * context.hardware.smi_timeout
        try:
            start(lambda: asyncio.run(monitor.ask_smi()), deadline).result()
        except TimeoutError:
            error = f"mx-smi did not end in {deadline:g} s"
        seconds = time.monotonic() - began
    try:
        held = asked.result()
    except TimeoutError:
        held = Held(why_not="timeout")
    return replace(
        context,
        cordons=cordons,
        cordon_error=cordon_error,
        state=monitor.state.value,
        state_error=error,
        smi_seconds=seconds,
        held=held,
    )
