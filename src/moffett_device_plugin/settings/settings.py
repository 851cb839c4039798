"""Settings: what flags, environment variables and the configuration file come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from ..deviceplugin.socket_names import check_length
from ..devices.health.policy import HealthPolicy
from ..hardware.settings import HardwareSettings
from ..kubernetes.settings import ApiFeatures
from ..metrics.address import Address
from ..resources.device_list_strategy import DeviceListStrategy
from ..resources.plugin_config import Monitoring, PluginConfig, PluginOptions
from ..resources.pools import (
    DEFAULT_RESOURCE,
    SHARED_SUFFIX,
    Resource,
    Sharing,
    check_disjoint,
    check_resource_name,
)
from ..resources.selector import ANYTHING, Selector, normal
from ..runtime.errors import ConfigurationError
from ..runtime.log import Format
from .options import OPTIONS, RESOURCE_OPTIONS, Option, RawValue, Values

#: The keys of `select` and `exclude` in the file, and what `Selector` calls them.
SELECTOR_KEYS: Mapping[str, str] = {
    "product": "products",
    "serial": "serials",
    "busId": "bus_ids",
    "numaNode": "numa_nodes",
    "index": "indexes",
}
_ALLOWED = {
    "busId": "use a bus id such as 0000:36:00.0",
    "numaNode": "use a number, 0 or more",
    "index": "use a number, 0 or more",
}


@dataclass(frozen=True, slots=True)
class LogSettings:
    form: Format = "text"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class IntegrationSettings:
    """What runs beside the plugin and reads what it knows. The paths of `api_...` are
    None, and the server is empty, for those of the pod."""

    metrics: Address | None = None
    nfd_file: Path | None = None
    api: ApiFeatures = field(default_factory=ApiFeatures)
    api_server: str = ""
    api_token_file: Path | None = None
    api_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ServeSettings:
    hardware: HardwareSettings
    log: LogSettings
    health: HealthPolicy
    kubelet_dir: Path = Path("/var/lib/kubelet/device-plugins")
    plugin_config: PluginConfig = field(default_factory=PluginConfig)
    smi_interval: float = 5.0
    pod_resources: Path | None = None
    node_name: str = ""
    integrations: IntegrationSettings = field(default_factory=IntegrationSettings)
    cdi_dir: Path = Path("/var/run/cdi")
    cdi_version: Literal["0.5.0", "0.6.0"] = "0.6.0"
    plugins_registry: Path = Path("/var/lib/kubelet/plugins_registry")
    dra_evict: frozenset[str] = frozenset()
    cordon: tuple[str, ...] = ()
    state_dir: Path = Path("/var/lib/moffett-device-plugin")

    @property
    def advertised(self) -> PluginConfig:
        """What is advertised through the device plugin API."""
        resources = self.plugin_config.resources
        own = tuple(resource for resource in resources if resource.api == "device-plugin")
        return replace(self.plugin_config, resources=own)

    @property
    def dra_resources(self) -> tuple[Resource, ...]:
        """What is given out through DRA."""
        resources = self.plugin_config.resources
        return tuple(resource for resource in resources if resource.api == "dra")


class Item(Protocol):
    """One of the file's `resources`: `key` says where it is."""

    key: str

    def get(self, path: str) -> RawValue | None: ...

    def several(self, path: str) -> Sequence[RawValue]:
        """The items of a list, or the one value where a list could be."""


def hardware_settings(values: Values) -> HardwareSettings:
    return HardwareSettings(
        host_root=values["--host-root"],
        smi=values["--mx-smi"],
        smi_timeout=values["--mx-smi-timeout"],
        smi_source=values["--telemetry-source"],
        telemetry_socket=values["--telemetry-socket"],
        control_devices=values["--control-device"],
        device_nodes=values["--device-node"],
        virtual_functions=values["--virtual-functions"],
        simulate=values["--simulate"],
        simulate_control=values["--simulate-control"],
    )


def state_dir(values: Values) -> Path:
    """Where cordons and faults are kept; of a simulated node beside its own faults, so that
    the real one, or the next simulation, is not taken for it."""
    folder: Path = values["--state-dir"]
    if values["--simulate"] and values.given(OPTIONS["--state-dir"]).origin == "default":
        control: Path = values["--simulate-control"]
        return control.parent
    return folder


def health_policy(values: Values) -> HealthPolicy:
    rules: HealthPolicy = values["--health"]
    return replace(
        rules,
        recovery_seconds=values["--recovery-seconds"],
        flapping_seconds=values["--flapping-seconds"],
    )


def plugin_config(values: Values) -> PluginConfig:
    strategy = DeviceListStrategy(values["--device-list-strategy"], values["--inject-sola"])
    options = PluginOptions(values["--pre-start-check"])
    configured = resources(values)
    return PluginConfig(configured, strategy, options, _monitoring(values, configured))


def _monitoring(values: Values, configured: Sequence[Resource]) -> Monitoring | None:
    name = values["--monitoring-resource-name"]
    if not values["--monitoring-units"]:
        return None
    if name in [resource.name for resource in configured]:
        given = values.given(OPTIONS["--monitoring-resource-name"])
        raise ConfigurationError(given.key, name, "devices have this name; use another one")
    return Monitoring(name, values["--monitoring-units"])


def integration_settings(values: Values) -> IntegrationSettings:
    sink = values["--labels"]
    nfd_file = values["--nfd-file"]
    return IntegrationSettings(
        metrics=values["--metrics-address"],
        nfd_file=nfd_file if sink == "nfd" else None,
        api=ApiFeatures(
            labels=sink == "api",
            events=values["--events"],
            condition=values["--condition"],
            cordons=values["--cordon-annotation"],
        ),
        api_server=values["--api-server"],
        api_token_file=values["--api-token-file"],
        api_ca_file=values["--api-ca-file"],
    )


def serve_settings(values: Values) -> ServeSettings:
    kubelet_dir = values["--kubelet-dir"]
    check_length(kubelet_dir)
    return ServeSettings(
        hardware=hardware_settings(values),
        log=LogSettings(values["--log-format"], values["--log-level"]),
        health=health_policy(values),
        kubelet_dir=kubelet_dir,
        plugin_config=plugin_config(values),
        smi_interval=values["--mx-smi-interval"],
        pod_resources=values["--pod-resources-socket"],
        node_name=values["--node-name"],
        integrations=integration_settings(values),
        cdi_dir=values["--cdi-dir"],
        cdi_version=values["--cdi-version"],
        plugins_registry=values["--plugins-registry-dir"],
        dra_evict=values["--dra-evict"],
        cordon=values["--cordon"],
        state_dir=state_dir(values),
    )


# -- resources ------------------------------------------------------------------------


def resources(values: Values) -> tuple[Resource, ...]:
    """Those of the file, else the one that flags and variables describe. Raises
    ConfigurationError, also when a device could be in two of them."""
    items = cast("Sequence[Item]", getattr(values.file, "resources", ()))
    if not items:
        return (_resource(values.given, None),)
    made = tuple(_resource(_within(values, item), item) for item in items)
    check_disjoint(made, [item.key for item in items])
    return made


def _within(values: Values, item: Item) -> Callable[[Option], RawValue]:
    def given(option: Option) -> RawValue:
        from_file = item.get(option.path) or values.from_file(option)
        default = RawValue(item.key, option.default, "default")
        return values.override(option) or from_file or default

    return given


def _resource(given: Callable[[Option], RawValue], item: Item | None) -> Resource:
    texts = {option.path: (option, given(option)) for option in RESOURCE_OPTIONS}

    def value(path: str) -> Any:
        option, text = texts[path]
        return option.parse(text.key, text.text)

    name_text = texts["name"][1]
    name = value("name") if name_text.text else DEFAULT_RESOURCE
    sharing = _sharing(value, texts)
    rename = value("sharing.rename") and sharing.shared  # read first: a wrong value is an error
    granularity = value("granularity")
    api = value("deviceApi")
    if api == "dra":
        _check_for_dra(texts, sharing, granularity)
    unnamed = Resource(
        None, name.partition("/")[0], granularity,
        _selector(item, "select"), _selector(item, "exclude"), sharing, value("placement"),
        rename, api,
    )  # fmt: skip
    if value("resourceNameFrom") == "product":
        if name_text.text and name_text.text.partition("/")[2] != "":
            remedy = "leave the name out: resourceNameFrom is product"
            raise ConfigurationError(name_text.key, name_text.text, remedy)
        return unnamed
    # A name that was chosen says already whether it stands for cards.
    full = name + (unnamed.suffix if not name_text.text else SHARED_SUFFIX if rename else "")
    check_resource_name(full, name_text.key)
    return Resource(
        full, unnamed.domain, granularity, unnamed.select, unnamed.exclude, sharing,
        unnamed.placement, rename, api,
    )  # fmt: skip


def _check_for_dra(
    texts: Mapping[str, tuple[Option, RawValue]], sharing: Sharing, granularity: str
) -> None:
    for path, wrong in (
        ("sharing.replicas", sharing.shared),
        ("granularity", granularity == "card"),
    ):
        if wrong:
            given = texts[path][1]
            remedy = "through DRA a claim gets whole devices: leave it out, or use deviceApi"
            raise ConfigurationError(given.key, given.text, f"{remedy} device-plugin")


def _sharing(value: Callable[[str], Any], texts: Mapping[str, tuple[Option, RawValue]]) -> Sharing:
    replicas = value("sharing.replicas") or 1
    refuse = value("sharing.failRequestsGreaterThanOne")
    sharing = Sharing(replicas, value("sharing.maxPerPod"), refuse)
    if refuse and not sharing.shared:
        given = texts["sharing.failRequestsGreaterThanOne"][1]
        remedy = "it is for shared resources: set sharing.replicas to 2 or more"
        raise ConfigurationError(given.key, given.text, remedy)
    return sharing


def _selector(item: Item | None, path: str) -> Selector:
    if item is None:
        return ANYTHING
    sets: dict[str, frozenset[str]] = {}
    for key, attribute in SELECTOR_KEYS.items():
        found: set[str] = set()
        for given in item.several(f"{path}.{key}"):
            text = normal(attribute, given.text)
            if text is None:
                remedy = _ALLOWED.get(key, f"use a {key} that is not empty")
                raise ConfigurationError(given.key, given.text, remedy)
            found.add(text)
        sets[attribute] = frozenset(found)
    return Selector(**sets)
