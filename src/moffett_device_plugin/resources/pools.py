"""What is advertised to the kubelet, under which names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..devices.cards import cards_of
from ..devices.inventory import Device
from ..devices.state import NodeState
from ..runtime.errors import ConfigurationError
from .device_ids import REPLICA_MARK, replica_id, replica_number
from .selector import ANYTHING, Selector

DEFAULT_RESOURCE = "moffett.ai/spu"
#: What a name ends in when its units are whole cards, and when they are shared.
CARD_SUFFIX = "-card"
SHARED_SUFFIX = ".shared"

Granularity = Literal["device", "card"]
GRANULARITIES: tuple[Granularity, ...] = ("device", "card")
NameFrom = Literal["config", "product"]
NAMES_FROM: tuple[NameFrom, ...] = ("config", "product")
Policy = Literal["compact", "spread", "none"]  # of placement
POLICIES: tuple[Policy, ...] = ("compact", "spread", "none")

_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Sharing:
    """How often each unit is advertised. `max_per_pod` limits what one container may
    ask for (the kubelet does not tell a plugin whose containers are of one pod)."""

    replicas: int = 1
    max_per_pod: int | None = None
    fail_requests_greater_than_one: bool = False

    @property
    def shared(self) -> bool:
        return self.replicas > 1

    @property
    def most(self) -> int | None:
        """The most replicas that one container may have; None for no limit."""
        if self.shared and self.fail_requests_greater_than_one:
            return 1
        return self.max_per_pod


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as configured.

    `name` is complete, with its suffixes; None: from the product, as `domain/s30`
    and its suffixes.
    """

    name: str | None = DEFAULT_RESOURCE
    domain: str = "moffett.ai"
    granularity: Granularity = "device"
    select: Selector = ANYTHING
    exclude: Selector = ANYTHING  # as an exclusion, that catches nothing
    sharing: Sharing = Sharing()
    placement: Policy = "compact"
    renamed: bool = True  # when shared

    def name_for(self, product: str | None) -> str | None:
        """What a device of `product` is advertised as; None when that is not known."""
        if self.name is not None or product is None:
            return self.name
        # With its suffixes a name may have 63 characters.
        slug = re.sub(r"[^a-z0-9]+", "-", product.lower())[:48].strip("-")
        return f"{self.domain}/{slug}{self.suffix}" if slug else None

    @property
    def suffix(self) -> str:
        card = CARD_SUFFIX if self.granularity == "card" else ""
        return card + (SHARED_SUFFIX if self.sharing.shared and self.renamed else "")

    def __str__(self) -> str:
        return self.name or f"{self.domain}/PRODUCT{self.suffix}"


@dataclass(frozen=True, slots=True)
class AdvertisedDevice:
    """One unit of a resource as the kubelet is told of it: a device, a card's devices,
    or a replica of either. `devices` are the ids of those that a container gets."""

    id: str
    healthy: bool
    numa_node: int | None = None
    device_ids: tuple[str, ...] = ()
    held: str = ""  # by whom as what, when that is not as this unit


@dataclass(frozen=True, slots=True)
class ResourcePool:
    """The part of the node that one name stands for. `bases` are its devices or cards
    in bus order, without their replicas."""

    name: str
    resource: Resource
    devices: tuple[AdvertisedDevice, ...]

    def advertised(self) -> tuple[AdvertisedDevice, ...]:
        """Everything advertised under the name: `bases`, or all replicas of them."""
        sharing = self.resource.sharing
        if not sharing.shared:
            return self.devices
        return tuple(
            replace(device, id=replica_id(device.id, number))
            for device in self.devices
            for number in range(sharing.replicas)
        )

    def has_replica(self, advertised_id: str) -> bool:
        """Whether the id's part after that of the device or card is one that this resource
        has: none without sharing, else the number of a replica."""
        if not self.resource.sharing.shared:
            return REPLICA_MARK not in advertised_id
        number = replica_number(advertised_id)
        return number is not None and number < self.resource.sharing.replicas


@dataclass(frozen=True, slots=True)
class UnassignedDevices:
    """Devices that are advertised under no name although a resource is meant for them."""

    device_ids: tuple[str, ...]
    why: str


def build_pools(
    state: NodeState, resources: Sequence[Resource] = (Resource(),)
) -> tuple[tuple[ResourcePool, ...], tuple[UnassignedDevices, ...]]:
    """Every device that was ever seen, in bus order, under the name it has: one that
    is gone or sick stays listed as unhealthy, so that capacity and allocatable tell
    the two apart. No device is in two divisions."""
    pools: dict[str, ResourcePool] = {}
    unassigned: list[UnassignedDevices] = []
    for resource in resources:
        devices: dict[str, list[AdvertisedDevice]] = {}
        for on_unit, unit_id in _units_of(resource, state.snapshot.devices, unassigned):
            product = on_unit[0].product
            name = resource.name_for(product)
            if name is None:
                ids = tuple(device.id for device in on_unit)
                unassigned.append(
                    UnassignedDevices(ids, "their product is not known, and names it")
                )
                continue
            devices.setdefault(name, []).append(_unit(unit_id, on_unit, state))
        for name, units in devices.items():
            if name in pools:
                ids = tuple(device_id for unit in units for device_id in unit.device_ids)
                unassigned.append(UnassignedDevices(ids, f"another resource has the name {name}"))
            else:
                pools[name] = ResourcePool(name, resource, tuple(units))
    return tuple(pools.values()), tuple(unassigned)


def _units_of(
    resource: Resource, devices: Sequence[Device], unassigned: list[UnassignedDevices]
) -> Iterable[tuple[tuple[Device, ...], str]]:
    """The devices of each unit, and its id."""

    def wanted(device: Device) -> bool:
        return resource.select.admits(device) and not resource.exclude.catches(device)

    if resource.granularity == "device":
        yield from (((device,), device.id) for device in devices if wanted(device))
        return
    for card in cards_of(devices):
        chosen = [device for device in card.devices if wanted(device)]
        if len(chosen) == len(card.devices):
            yield card.devices, card.id
        elif chosen:
            ids = tuple(device.id for device in chosen)
            why = f"only some chips of {card.id} are selected, and {resource} has whole cards"
            unassigned.append(UnassignedDevices(ids, why))


def _unit(unit_id: str, devices: tuple[Device, ...], state: NodeState) -> AdvertisedDevice:
    nodes = {device.numa_node for device in devices}
    return AdvertisedDevice(
        unit_id,
        all(state.healthy(device.id) for device in devices),
        nodes.pop() if len(nodes) == 1 else None,
        tuple(device.id for device in devices),
    )


# -- checks of a configuration --------------------------------------------------------


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


def check_disjoint(resources: Sequence[Resource], keys: Sequence[str]) -> None:
    """Raises ConfigurationError that names the pair unless no device, whatever a node
    has, can be in two of them. `keys` says where each of them was configured."""
    for number, resource in enumerate(resources):
        for other, key in zip(resources[:number], keys, strict=False):
            if resource.name == other.name and resource.name is not None:
                remedy = f"{key} has this name already; give each resource a name of its own"
                raise ConfigurationError(f"{keys[number]}.name", str(resource), remedy)
            if resource.name is None and other.name is None and str(resource) == str(other):
                remedy = f"{key} names its devices the same way; make them one resource"
                raise ConfigurationError(keys[number], str(resource), remedy)
            if not _disjoint(resource, other):
                remedy = (
                    f"a device could be in {key} ({other}) as well; give both a key with no value"
                    " in common, or let one exclude what the other selects"
                )
                raise ConfigurationError(keys[number], str(resource), remedy)


def _disjoint(one: Resource, other: Resource) -> bool:
    return (
        one.select.apart_from(other.select)
        or one.select.within(other.exclude)
        or other.select.within(one.exclude)
    )
