"""Settings: flags and environment variables to checked values.

Each flag `--some-name` has an environment variable `SPU_SOME_NAME`; the flag wins,
and an empty variable counts as none.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .allocation.placement import POLICIES, Policy
from .errors import ConfigurationError
from .health.policy import HealthPolicy, parse_rules
from .log import LEVELS, Format
from .resources import DEFAULT_RESOURCE, check_resource_name

DEFAULT_CONTROL = "/run/moffett-device-plugin/simulation.json"


@dataclass(frozen=True, slots=True)
class HardwareSettings:
    """Which machine to look at. `simulate` is the cards of a simulated node, empty
    for a real one; `smi` is None for the host root's own, "" for none at all."""

    host_root: Path = Path("/")
    smi: str | None = None
    smi_timeout: float = 5.0
    control_nodes: tuple[str, ...] = ()
    simulate: tuple[str, ...] = ()
    simulate_control: Path = Path(DEFAULT_CONTROL)


@dataclass(frozen=True, slots=True)
class LogSettings:
    form: Format = "text"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class ServeSettings:
    hardware: HardwareSettings
    log: LogSettings
    health: HealthPolicy
    kubelet_dir: Path = Path("/var/lib/kubelet/device-plugins")
    resource: str = DEFAULT_RESOURCE
    placement: Policy = "compact"
    smi_interval: float = 5.0


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its flag, and how its text becomes a value. `parse` takes the
    key that the text came from, for its errors, and the text."""

    flag: str
    default: str
    parse: Callable[[str, str], Any]
    help: str
    metavar: str
    repeatable: bool = False

    @property
    def env(self) -> str:
        return "SPU_" + self.flag.removeprefix("--").replace("-", "_").upper()

    @property
    def attribute(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


# -- how each text is read ------------------------------------------------------------


def _directory(key: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ConfigurationError(key, text, "use an absolute path")
    if path.exists() and not path.is_dir():
        raise ConfigurationError(key, text, "it is not a directory")
    return path


def _existing_directory(key: str, text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_dir():
        raise ConfigurationError(key, text, "there is no such directory")
    return path


def _command(key: str, text: str) -> str | None:
    if not text:
        return None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(key, text, f"{error}; write it as for a shell") from error
    return "" if words == ["none"] else text


def _globs(key: str, text: str) -> tuple[str, ...]:
    globs = tuple(part.strip() for part in text.split(",") if part.strip())
    for glob in globs:
        if not glob.startswith("/dev/"):
            raise ConfigurationError(key, glob, "use a pattern below /dev, such as /dev/spu-ctl*")
    return globs


def _cards(key: str, text: str) -> tuple[str, ...]:
    from .hardware.simulation import parse_spec

    return parse_spec(text, key) if text else ()


def _path(key: str, text: str) -> Path:
    return Path(text).absolute()


def _seconds(least: float, most: float) -> Callable[[str, str], float]:
    def parse(key: str, text: str) -> float:
        try:
            value = float(text.removesuffix("s"))
        except ValueError:
            value = -1.0
        if not least <= value <= most:
            remedy = f"use a number of seconds from {least:g} to {most:g}"
            raise ConfigurationError(key, text, remedy)
        return value

    return parse


def _one_of(allowed: tuple[str, ...]) -> Callable[[str, str], str]:
    def parse(key: str, text: str) -> str:
        if text not in allowed:
            raise ConfigurationError(key, text, f"use one of {', '.join(allowed)}")
        return text

    return parse


def _resource(key: str, text: str) -> str:
    return check_resource_name(text, key)


def _rules(key: str, text: str) -> HealthPolicy:
    return parse_rules(text, key)


HARDWARE_OPTIONS = (
    Option(
        "--host-root", "/", _existing_directory,
        "where sys, dev, usr/bin/mx-smi and usr/local/sola are looked up", "DIR",
    ),
    Option(
        "--mx-smi", "", _command,
        "the mx-smi to run, with its arguments; none for sysfs alone"
        " (default: the host root's own, if there is one)", "COMMAND",
    ),
    Option(
        "--mx-smi-timeout", "5", _seconds(0.1, 60),
        "how long a run of mx-smi may take before it is killed", "SECONDS",
    ),
    Option(
        "--control-node", "", _globs,
        "device nodes that every container gets beside its own devices'"
        " (repeatable; those of the driver's own class are found by themselves)",
        "GLOB", repeatable=True,
    ),
    Option(
        "--simulate", "", _cards,
        "a simulated node in place of the real one, such as 8xS30 or 2xS4,1xS30", "SPEC",
    ),
    Option(
        "--simulate-control", DEFAULT_CONTROL, _path,
        "where `simulate` tells a simulated node what is to go wrong", "FILE",
    ),
)  # fmt: skip
LOG_OPTIONS = (
    Option("--log-format", "text", _one_of(("text", "json")), "text or json", "FORMAT"),
    Option("--log-level", "info", _one_of(LEVELS), f"one of {', '.join(LEVELS)}", "LEVEL"),
)
HEALTH_OPTIONS = (
    Option(
        "--health", "", _rules,
        "health rules to turn off or to give other limits, such as"
        " over-temperature=95/85,ecc-corrected=off (repeatable)", "RULE=VALUE", repeatable=True,
    ),
    Option(
        "--recovery-seconds", "5", _seconds(0, 3600),
        "how long the cause must be gone before a device counts as healthy again", "SECONDS",
    ),
)  # fmt: skip
SERVE_OPTIONS = (
    Option(
        "--kubelet-dir", "/var/lib/kubelet/device-plugins", _directory,
        "the kubelet's directory for plugin sockets", "DIR",
    ),
    Option("--resource-name", DEFAULT_RESOURCE, _resource, "what to advertise", "NAME"),
    Option(
        "--placement", "compact", _one_of(POLICIES),
        "the devices to prefer for a pod: near each other, far apart, or any", "POLICY",
    ),
    Option(
        "--mx-smi-interval", "5", _seconds(0.5, 3600),
        "the time between runs of mx-smi", "SECONDS",
    ),
)  # fmt: skip


# -- from the command line and the environment to values -------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_options(parser: argparse.ArgumentParser, options: tuple[Option, ...]) -> None:
    for option in options:
        default = f", default {option.default}" if option.default else ""
        parser.add_argument(
            option.flag,
            metavar=option.metavar,
            action="append" if option.repeatable else "store",
            help=f"{option.help} [{option.env}{default}]",
        )


class Values:
    """The value of each option: from its flag, else its variable, else its default."""

    def __init__(self, arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._environment = environment

    def __getitem__(self, option: Option) -> Any:
        given = getattr(self._arguments, option.attribute, None)
        if given is not None:
            text = ",".join(given) if option.repeatable else given
            return option.parse(option.flag, text)
        text = self._environment.get(option.env, "")
        if text:
            return option.parse(option.env, text)
        return option.parse(option.flag, option.default)


def hardware_settings(values: Values) -> HardwareSettings:
    root, smi, timeout, nodes, simulate, control = (values[o] for o in HARDWARE_OPTIONS)
    return HardwareSettings(root, smi, timeout, nodes, simulate, control)


def log_settings(values: Values) -> LogSettings:
    form, level = (values[o] for o in LOG_OPTIONS)
    return LogSettings(form, level)


def health_policy(values: Values) -> HealthPolicy:
    rules, recovery = (values[o] for o in HEALTH_OPTIONS)
    return HealthPolicy(rules.limits, rules.off, recovery)


def serve_settings(values: Values) -> ServeSettings:
    from .kubelet.listener import check_length

    directory, resource, placement, interval = (values[o] for o in SERVE_OPTIONS)
    check_length(directory)
    return ServeSettings(
        hardware=hardware_settings(values),
        log=log_settings(values),
        health=health_policy(values),
        kubelet_dir=directory,
        resource=resource,
        placement=placement,
        smi_interval=interval,
    )
