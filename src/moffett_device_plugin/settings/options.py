"""Every setting, once: its flag, its environment variable, its place in the
configuration file, its default, and what it is for.

Each flag `--some-name` has an environment variable `SPU_SOME_NAME`. The flag wins over
the variable, the variable over the file; an empty variable counts as none.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..devices.health.cordon import CORDONED
from ..devices.health.flapping import FLAPPING
from ..devices.health.policy import HealthPolicy, parse_rules
from ..devices.health.rules import RULES as HEALTH_RULES
from ..hardware.settings import DEFAULT_CONTROL, DEFAULT_TELEMETRY_SOCKET, SMI_SOURCES
from ..resources.device_list_strategy import CDI_VERSIONS, STRATEGIES
from ..resources.plugin_config import DEFAULT_MONITORING
from ..resources.pools import (
    DEFAULT_RESOURCE,
    DEVICE_APIS,
    GRANULARITIES,
    NAMES_FROM,
    POLICIES,
    check_resource_name,
)
from ..runtime.errors import ConfigurationError
from ..runtime.log import LEVELS
from . import types
from .types import OptionType

LABEL_SINKS = ("none", "nfd", "api")


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


def _codes(key: str, text: str) -> frozenset[str]:
    return frozenset(_SOME_CODES.parse(key, text)) if text else frozenset()


_SOME_CODES = types.some_of((*(rule.code for rule in HEALTH_RULES), CORDONED, FLAPPING))
_CODES = OptionType(_codes, _SOME_CODES.schema)
_RESOURCE_NAME = OptionType(_resource, {"type": "string", "pattern": "^[^/]+/[^/]+$"})
#: In the file, a rule is a key of a mapping; `config.document` knows.
RULES = OptionType(
    _rules,
    {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
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
        "--telemetry-source", "telemetry.source", "mx-smi", types.one_of(SMI_SOURCES),
        "where temperatures, memory errors, serials and firmware state come from: mx-smi, run"
        " by this process; socket, the process `telemetry` of another container; or none",
        "SOURCE",
    ),
    Option(
        "--telemetry-socket", "telemetry.socket", DEFAULT_TELEMETRY_SOCKET, types.PATH,
        "the socket of `telemetry`; its directory must be writable by its owner only", "FILE",
    ),
    Option(
        "--control-device", "controlDevices", "", types.DEVICE_GLOBS,
        "device nodes for every container, beside those of its own devices (repeatable;"
        " those of the driver's own class are found without it); * ? [0-3] [!0-3] are as in a"
        " shell, and never stand for a /",
        "GLOB", repeatable=True,
    ),
    Option(
        "--device-node", "deviceNodes", "", types.DEVICE_NODES,
        "for a driver whose nodes have no parent device: a node of each device, as"
        " /dev/spu{index} (in the order of these numbers) or a glob (in the order of minor"
        " numbers; as in a shell, * and ? never stand for a /); !GLOB leaves nodes out"
        " (repeatable)", "TEMPLATE", repeatable=True,
    ),
    Option(
        "--virtual-functions", "virtualFunctions", "false", types.SWITCH,
        "whether SR-IOV virtual functions are devices too", "true|false",
    ),
    Option(
        "--simulate", "simulate.cards", "", types.CARDS,
        "a simulated node in place of the real one, such as 8xS30 or 2xS4,1xS30", "SPEC",
    ),
    Option(
        "--simulate-control", "simulate.control", DEFAULT_CONTROL, types.PATH,
        "the file in which `simulate` puts the faults of a simulated node", "FILE",
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
    Option(
        "--flapping-seconds", "health.flappingSeconds", "60,600,3600", types.SECONDS_LIST,
        "the same after the second, third and each further fault within a day; none for"
        " recoverySeconds each time (repeatable)", "SECONDS", repeatable=True,
    ),
    Option(
        "--cordon", "cordon", "", types.CORDON_TARGETS,
        "devices and cards that are taken out of service, by their IDs: 0000:36:00.0,"
        " card-0000:34:00.0, or all; pods that have one keep it (repeatable)", "ID",
        repeatable=True,
    ),
    Option(
        "--state-dir", "stateDir", "/var/lib/moffett-device-plugin", types.DIRECTORY,
        "where cordons and the faults of flapping devices are kept, a directory of the host"
        " (with a simulated node: beside simulate.control)", "DIR",
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
        "what one of the resource is: a device, or a whole card", "UNIT",
    ),
    Option(
        "--placement", "placement", "compact", types.one_of(POLICIES),
        "the devices to prefer for a pod: near each other, far apart, or any", "POLICY",
    ),
    Option(
        "--device-api", "deviceApi", "device-plugin", types.one_of(DEVICE_APIS),
        "how the devices are given out: as a resource of the device plugin API, or as devices"
        " of dynamic resource allocation (DRA, Kubernetes 1.34 and later)", "API",
    ),
    Option(
        "--sharing-replicas", "sharing.replicas", "1", types.whole_number(1, 1000),
        "how many containers may share each advertised device; their memory is not isolated", "N",
    ),
    Option(
        "--sharing-rename", "sharing.rename", "true", types.SWITCH,
        "whether a shared resource's name ends in .shared", "true|false",
    ),
    Option(
        "--sharing-max-per-pod", "sharing.maxPerPod", "", types.whole_number(1, 100_000),
        "the most of the resource that one container may ask for", "N",
    ),
    Option(
        "--sharing-fail-requests-greater-than-one", "sharing.failRequestsGreaterThanOne",
        "false", types.SWITCH,
        "whether a container that asks for more than one of a shared resource is refused",
        "true|false",
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
        "the kubelet's socket that lists which pods hold which devices; none for not asking",
        "FILE",
    ),
    Option(
        "--node-name", "nodeName", "", types.TEXT,
        "this node's name, for settings of some nodes and for the API server", "NAME",
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
        "--plugins-registry-dir", "pluginsRegistryDir", "/var/lib/kubelet/plugins_registry",
        types.DIRECTORY, "the kubelet's directory for the sockets of DRA drivers", "DIR",
    ),
    Option(
        "--dra-evict", "dra.evict", "", _CODES,
        "with DRA: the reasons of health for which pods are evicted from an unhealthy device,"
        " such as bus-gone; for others they stay, and new ones are kept away (repeatable)",
        "CODE", repeatable=True,
    ),
    Option(
        "--cdi-dir", "cdi.dir", "/var/run/cdi", types.DIRECTORY,
        "where CDI specs are written when a cdi strategy or DRA is on", "DIR",
    ),
    Option(
        "--cdi-version", "cdi.version", "0.6.0", types.one_of(CDI_VERSIONS),
        "the lowest CDI version that specs declare: 0.5.0 for engines that support no later one",
        "VERSION",
    ),
    Option(
        "--inject-sola", "injectSola", "false", types.SWITCH,
        "whether containers get the host's SOLA, read-only", "true|false",
    ),
    Option(
        "--pre-start-check", "preStartCheck", "false", types.SWITCH,
        "whether devices are checked once more right before a container starts",
        "true|false",
    ),
)  # fmt: skip
MONITORING_OPTIONS = (
    Option(
        "--monitoring-units", "monitoring.units", "0", types.whole_number(0, 100),
        "how many containers of a node can have the monitoring resource at a time: each reaches"
        " every device and holds none (0: it is not offered)", "N",
    ),
    Option(
        "--monitoring-resource-name", "monitoring.resourceName", DEFAULT_MONITORING,
        _RESOURCE_NAME, "what the monitoring resource is called", "NAME",
    ),
)  # fmt: skip
INTEGRATION_OPTIONS = (
    Option(
        "--metrics-address", "metrics.address", "", types.ADDRESS,
        "where metrics, /healthz and /readyz are served, such as :9400 or 127.0.0.1:9400"
        " (default: nowhere)", "HOST:PORT",
    ),
    Option(
        "--labels", "labels.sink", "none", types.one_of(LABEL_SINKS),
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
        "--cordon-annotation", "cordonAnnotation", "false", types.SWITCH,
        "whether the annotation moffett.ai/spu-cordon of the Node takes devices and cards out of"
        " service", "true|false",
    ),
    Option(
        "--api-server", "api.server", "", types.TEXT,
        "the API server (default: the pod's own)", "URL",
    ),
    Option(
        "--api-token-file", "api.tokenFile", "", types.OPTIONAL_PATH,
        "the token for it (default: the pod's own)", "FILE",
    ),
    Option(
        "--api-ca-file", "api.caFile", "", types.OPTIONAL_PATH,
        "the CA certificates for it (default: the pod's own)", "FILE",
    ),
)  # fmt: skip
CONFIG_OPTION = Option(
    "--config", "", "", types.OPTIONAL_PATH, "the configuration file (YAML)", "FILE"
)
#: All that a configuration file can set, except what is in each item of `resources`.
FILE_OPTIONS = (
    HARDWARE_OPTIONS
    + SERVE_OPTIONS
    + MONITORING_OPTIONS
    + INTEGRATION_OPTIONS
    + HEALTH_OPTIONS
    + LOG_OPTIONS
)
OPTIONS = {o.flag: o for o in (CONFIG_OPTION, *RESOURCE_OPTIONS, *FILE_OPTIONS)}

#: Names of earlier versions, and what replaces them: each is refused with its new name.
RENAMED_FLAGS = {"--control-node": "--control-device"}
RENAMED_VARIABLES = {"SPU_CONTROL_NODE": "SPU_CONTROL_DEVICE"}
RENAMED_KEYS = {"controlNodes": "controlDevices", "labels.to": "labels.sink"}


def check_variables(environment: Mapping[str, str]) -> None:
    """Raises ConfigurationError for a variable that has another name now."""
    for name, now in RENAMED_VARIABLES.items():
        if environment.get(name):
            raise ConfigurationError(name, environment[name], f"its name is now {now}")


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

    def __getitem__(self, option: Option | str) -> Any:
        """The value of an option, which may be named by its flag."""
        if isinstance(option, str):
            option = OPTIONS[option]
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
