"""The terms on which devices are offered. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field

from .device_list_strategy import DeviceListStrategy
from .pools import Resource


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """Which of the calls that the API leaves to a plugin the kubelet is to make."""

    pre_start: bool = False
    preferred_allocation: bool = True


@dataclass(frozen=True, slots=True)
class PluginConfig:
    """As what devices are offered, what a container gets with them, and when the
    plugin is asked."""

    resources: tuple[Resource, ...] = (Resource(),)
    device_list_strategy: DeviceListStrategy = field(default_factory=DeviceListStrategy)
    options: PluginOptions = field(default_factory=PluginOptions)
