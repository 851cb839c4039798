"""Every setting, once: its flag, its environment variable, its place in the
configuration file, its default, and what it is for.

Each flag `--some-name` has an environment variable `SPU_SOME_NAME`. The flag wins over
the variable, the variable over the file; an empty variable counts as none.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from ..devices.health.policy import HealthPolicy, parse_rules
from ..resources.device_list_strategy import CDI_VERSIONS, STRATEGIES
from ..resources.pools import (
    DEFAULT_RESOURCE,
    GRANULARITIES,
    NAMES_FROM,
    POLICIES,
    check_resource_name,
)
from ..runtime.log import LEVELS
from . import types
from .types import OptionType

LABELS_TO = ("none", "nfd", "api")
DEFAULT_CONTROL = "/run/moffett-device-plugin/simulation.json"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting. `path` is its key in the configuration file; that of an option of
    a resource is below each item of `resources`, and at the top for all of them."""

    flag: str
    path: str
    default: str
    type: OptionType
    help: str
    metavar: str
    repeatable: bool = False

    @property
    def env(self) -> str:
        return "SPU_" + self.flag.removeprefix("--").replace("-", "_").upper()

    @property
    def attribute(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    def parse(self, key: str, text: str) -> Any:
        return self.type.parse(key, text)


def _resource(key: str, text: str) -> str:
    return check_resource_name(text, key)


def _rules(key: str, text: str) -> HealthPolicy:
    return parse_rules(text, key)


_RESOURCE_NAME = OptionType(_resource, {"type": "string", "pattern": "^[^/]+/[^/]+$"})
#: In the file, a rule is a key of a mapping; `config.document` knows.
RULES = OptionType(
    _rules,
    {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
)

HARDWARE_OPTIONS = (
    Option(
        "--host-root", "hostRoot", "/", types.EXISTING_DIRECTORY,
        "where sys, dev, usr/bin/mx-smi and usr/local/sola are looked up", "DIR",
    ),
    Option(
        "--mx-smi", "mxSmi.command", "", types.COMMAND,
        "the mx-smi to run, with its arguments; none for sysfs alone"
        " (default: the host root's own, if there is one)", "COMMAND",
    ),
    Option(
        "--mx-smi-timeout", "mxSmi.timeoutSeconds", "5", types.seconds(0.1, 60),
        "how long a run of mx-smi may take before it is killed", "SECONDS",
    ),
    Option(
        "--control-node", "controlNodes", "", types.DEVICE_GLOBS,
        "device nodes that every container gets beside its own devices'"
        " (repeatable; those of the driver's own class are found by themselves)",
        "GLOB", repeatable=True,
    ),
    Option(
        "--simulate", "simulate.cards", "", types.CARDS,
        "a simulated node in place of the real one, such as 8xS30 or 2xS4,1xS30", "SPEC",
    ),
    Option(
        "--simulate-control", "simulate.control", DEFAULT_CONTROL, types.PATH,
        "where `simulate` tells a simulated node what is to go wrong", "FILE",
    ),
)  # fmt: skip
LOG_OPTIONS = (
    Option(
        "--log-format", "log.format", "text", types.one_of(("text", "json")),
        "text or json", "FORMAT",
    ),
    Option(
        "--log-level", "log.level", "info", types.one_of(LEVELS),
        f"one of {', '.join(LEVELS)}", "LEVEL",
    ),
)  # fmt: skip
HEALTH_OPTIONS = (
    Option(
        "--health", "health.rules", "", RULES,
        "health rules to turn off or to give other limits, such as"
        " over-temperature=95/85,ecc-corrected=off (repeatable)", "RULE=VALUE", repeatable=True,
    ),
    Option(
        "--recovery-seconds", "health.recoverySeconds", "5", types.seconds(0, 3600),
        "how long the cause must be gone before a device counts as healthy again", "SECONDS",
    ),
)  # fmt: skip
RESOURCE_OPTIONS = (
    Option(
        "--resource-name", "name", "", _RESOURCE_NAME,
        f"what to advertise (default: {DEFAULT_RESOURCE}, with -card for whole cards and"
        " .shared for shared ones)", "NAME",
    ),
    Option(
        "--resource-name-from", "resourceNameFrom", "config", types.one_of(NAMES_FROM),
        "config, or product for names such as moffett.ai/s30", "SOURCE",
    ),
    Option(
        "--granularity", "granularity", "device", types.one_of(GRANULARITIES),
        "what one unit of the resource is: a device, or a whole card", "UNIT",
    ),
    Option(
        "--placement", "placement", "compact", types.one_of(POLICIES),
        "the devices to prefer for a pod: near each other, far apart, or any", "POLICY",
    ),
    Option(
        "--sharing-replicas", "sharing.replicas", "1", types.whole_number(1, 1000),
        "how many pods may share each unit; nothing keeps their memory apart", "N",
    ),
    Option(
        "--sharing-rename", "sharing.rename", "true", types.SWITCH,
        "whether a shared resource's name ends in .shared", "true|false",
    ),
    Option(
        "--sharing-max-per-pod", "sharing.maxPerPod", "", types.whole_number(1, 100_000),
        "the most units of the resource that one container may ask for", "N",
    ),
    Option(
        "--sharing-fail-requests-greater-than-one", "sharing.failRequestsGreaterThanOne",
        "false", types.SWITCH,
        "whether a container that asks for several shared units is refused", "true|false",
    ),
)  # fmt: skip
SERVE_OPTIONS = (
    Option(
        "--kubelet-dir", "kubeletDir", "/var/lib/kubelet/device-plugins", types.DIRECTORY,
        "the kubelet's directory for plugin sockets", "DIR",
    ),
    Option(
        "--pod-resources-socket", "podResourcesSocket",
        "/var/lib/kubelet/pod-resources/kubelet.sock", types.SOCKET,
        "where the kubelet tells which pods hold which devices; none for not asking", "FILE",
    ),
    Option(
        "--node-name", "nodeName", "", types.TEXT,
        "this node's name, for what is configured or told by node", "NAME",
    ),
    Option(
        "--mx-smi-interval", "mxSmi.intervalSeconds", "5", types.seconds(0.5, 3600),
        "the time between runs of mx-smi", "SECONDS",
    ),
    Option(
        "--device-list-strategy", "deviceListStrategy", "device-specs",
        types.some_of(STRATEGIES),
        f"how containers get their devices: some of {', '.join(STRATEGIES)} (repeatable)",
        "STRATEGY", repeatable=True,
    ),
    Option(
        "--cdi-dir", "cdi.dir", "/var/run/cdi", types.DIRECTORY,
        "where CDI specs are written when a cdi strategy is on", "DIR",
    ),
    Option(
        "--cdi-version", "cdi.version", "0.6.0", types.one_of(CDI_VERSIONS),
        "the least CDI version that specs declare: 0.5.0 for engines that know no later one",
        "VERSION",
    ),
    Option(
        "--inject-sola", "injectSola", "false", types.SWITCH,
        "whether containers get the host's SOLA, read-only", "true|false",
    ),
    Option(
        "--pre-start-check", "preStartCheck", "false", types.SWITCH,
        "whether devices are looked at once more right before a container starts",
        "true|false",
    ),
)  # fmt: skip
BESIDE_OPTIONS = (
    Option(
        "--metrics-address", "metrics.address", "", types.ADDRESS,
        "where metrics, /healthz and /readyz are served, such as :9400 or 127.0.0.1:9400"
        " (default: nowhere)", "HOST:PORT",
    ),
    Option(
        "--labels", "labels.to", "none", types.one_of(LABELS_TO),
        "where labels that describe the devices go: to a file for Node Feature Discovery,"
        " to the Node by the API, or nowhere", "none|nfd|api",
    ),
    Option(
        "--nfd-file", "labels.nfdFile",
        "/etc/kubernetes/node-feature-discovery/features.d/moffett-spu", types.PATH,
        "the file for Node Feature Discovery", "FILE",
    ),
    Option(
        "--events", "events", "false", types.SWITCH,
        "whether each change of a device's health is an Event on the Node", "true|false",
    ),
    Option(
        "--condition", "condition", "false", types.SWITCH,
        "whether the Node has a condition SPUHealthy", "true|false",
    ),
    Option(
        "--api-server", "api.server", "", types.TEXT,
        "the API server (default: the pod's own)", "URL",
    ),
    Option(
        "--api-token-file", "api.tokenFile", "", types.OPTIONAL_PATH,
        "the token to show it (default: the pod's own)", "FILE",
    ),
    Option(
        "--api-ca-file", "api.caFile", "", types.OPTIONAL_PATH,
        "who may vouch for it (default: the pod's own)", "FILE",
    ),
)  # fmt: skip
NODE_NAME = next(option for option in SERVE_OPTIONS if option.path == "nodeName")
CONFIG_OPTION = Option(
    "--config", "", "", types.OPTIONAL_PATH, "the configuration file (YAML)", "FILE"
)
#: All that a configuration file can set, but for what is in each item of `resources`.
FILE_OPTIONS = HARDWARE_OPTIONS + SERVE_OPTIONS + BESIDE_OPTIONS + HEALTH_OPTIONS + LOG_OPTIONS


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


@dataclass(frozen=True, slots=True)
class RawValue:
    """A setting's text where it was given: `key` for errors, `origin` for people."""

    key: str
    text: str
    origin: str


class Layer(Protocol):
    """A configuration file, resolved for this node."""

    def get(self, path: str) -> RawValue | None:
        """What it says at a path such as `log.level`; None for nothing."""


class Values:
    """The value of each option: from its flag, else its variable, else the file, else
    its default."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        environment: Mapping[str, str],
        file: Layer | None = None,
        *,
        here: bool = True,
    ) -> None:
        self.file = file
        self._here = here
        self._arguments = arguments
        self._environment = environment

    def over(self, file: Layer | None, *, here: bool | None = None) -> Values:
        """The same flags and variables over another file. With `here` False, the values
        are for another machine, and this one's directories are not looked at."""
        here = self._here if here is None else here
        return Values(self._arguments, self._environment, file, here=here)

    def __getitem__(self, option: Option) -> Any:
        given = self.given(option)
        value = option.parse(given.key, given.text)
        if self._here and option.type.check is not None:
            option.type.check(given.key, value)
        return value

    def given(self, option: Option) -> RawValue:
        default = RawValue(option.flag, option.default, "default")
        return self.override(option) or self.from_file(option) or default

    def from_file(self, option: Option) -> RawValue | None:
        return self.file.get(option.path) if self.file is not None and option.path else None

    def override(self, option: Option) -> RawValue | None:
        """What a flag or a variable says."""
        given = getattr(self._arguments, option.attribute, None)
        if given is not None:
            text = ",".join(given) if option.repeatable else given
            return RawValue(option.flag, text, option.flag)
        text = self._environment.get(option.env, "")
        return RawValue(option.env, text, option.env) if text else None
