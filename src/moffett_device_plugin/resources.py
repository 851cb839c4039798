"""What is advertised to the kubelet, under which names. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import ConfigurationError
from .node import NodeState

DEFAULT_RESOURCE = "moffett.ai/spu"
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class AdvertisedDevice:
    """One device as the kubelet is told of it."""

    id: str
    healthy: bool
    numa_node: int | None = None


def advertise(state: NodeState) -> tuple[AdvertisedDevice, ...]:
    """Every device that was ever seen, in bus order: one that is gone or sick stays
    listed as unhealthy, so that capacity and allocatable tell the two apart."""
    return tuple(
        AdvertisedDevice(device.id, state.healthy(device.id), device.numa_node)
        for device in state.snapshot.devices
    )


def check_resource_name(name: str, key: str = "--resource-name") -> str:
    """Raises ConfigurationError unless a kubelet accepts it as an extended resource."""
    domain, slash, resource = name.partition("/")
    valid = (
        slash
        and _DOMAIN.fullmatch(domain)
        and _NAME.fullmatch(resource)
        and len(domain) <= 253
        and len(resource) <= 63
    )
    # The kubelet keeps these prefixes and domains for itself.
    reserved = (
        domain.startswith("requests.")
        or domain in ("kubernetes.io",)
        or (domain.endswith(".kubernetes.io"))
    )
    if not valid or reserved:
        raise ConfigurationError(
            key, name, f"use DOMAIN/NAME outside kubernetes.io, such as {DEFAULT_RESOURCE}"
        )
    return name
