"""The terms on which devices are offered. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field

from .device_list_strategy import Delivery
from .pools import Resource


@dataclass(frozen=True, slots=True)
class Calls:
    """Which of the calls that the API leaves to a plugin the kubelet is to make."""

    pre_start: bool = False
    preferred_allocation: bool = True


@dataclass(frozen=True, slots=True)
class Terms:
    """As what devices are offered, what a container gets with them, and when the
    plugin is asked."""

    resources: tuple[Resource, ...] = (Resource(),)
    delivery: Delivery = field(default_factory=Delivery)
    calls: Calls = field(default_factory=Calls)
