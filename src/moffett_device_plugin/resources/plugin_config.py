"""What the node's plugins advertise, and what each of them does. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field

from .device_list_strategy import PLAIN, DeviceListStrategy
from .pools import AdvertisedDevice, Resource, ResourcePool

DEFAULT_MONITORING = "moffett.ai/spu-monitoring"


@dataclass(frozen=True, slots=True)
class Monitoring:
    """A resource whose holder reaches every device and holds none. `units`: how many
    containers of a node can have it at a time."""

    name: str = DEFAULT_MONITORING
    units: int = 1


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """Which of the calls that the API leaves to a plugin the kubelet is to make."""

    pre_start: bool = False
    preferred_allocation: bool = True


@dataclass(frozen=True, slots=True)
class PluginConfig:
    """As what devices are advertised, what a container gets with them, and when the
    plugin is asked. `monitoring` is None where no such resource is offered."""

    resources: tuple[Resource, ...] = (Resource(),)
    device_list_strategy: DeviceListStrategy = field(default_factory=DeviceListStrategy)
    options: PluginOptions = field(default_factory=PluginOptions)
    monitoring: Monitoring | None = None


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """What one plugin serves at one moment. `advertised` is what ListAndWatch sends: the
    pool's devices or all replicas of them; nothing once the plugin is withdrawn."""

    pool: ResourcePool
    advertised: tuple[AdvertisedDevice, ...]
    device_list_strategy: DeviceListStrategy = PLAIN
    options: PluginOptions = PluginOptions()
