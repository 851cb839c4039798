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
#: What a name ends in for whole cards, and for devices or cards that are shared.
CARD_SUFFIX = "-card"
SHARED_SUFFIX = ".shared"

Granularity = Literal["device", "card"]
GRANULARITIES: tuple[Granularity, ...] = ("device", "card")
NameFrom = Literal["config", "product"]
NAMES_FROM: tuple[NameFrom, ...] = ("config", "product")
DeviceApi = Literal["device-plugin", "dra"]
DEVICE_APIS: tuple[DeviceApi, ...] = ("device-plugin", "dra")
Policy = Literal["compact", "spread", "none"]  # of placement
POLICIES: tuple[Policy, ...] = ("compact", "spread", "none")

_QUOTA_PREFIX = "requests."
_LONGEST_DOMAIN = 253
_LONGEST_NAME = 63
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Sharing:
    """How often each device or card is advertised. `max_per_pod` limits what one container may
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
    and its suffixes. With DRA as `api`, which has no resource names, it has no meaning.
    """

    name: str | None = DEFAULT_RESOURCE
    domain: str = "moffett.ai"
    granularity: Granularity = "device"
    select: Selector = ANYTHING
    exclude: Selector = ANYTHING  # as an exclusion, that catches nothing
    sharing: Sharing = Sharing()
    placement: Policy = "compact"
    renamed: bool = True  # when shared
    api: DeviceApi = "device-plugin"

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
    """What the kubelet counts as one device of a resource: a device, a card, or a replica
    of either. `device_ids` are those of the SPU devices that a container gets."""

    id: str
    healthy: bool
    numa_node: int | None = None
    device_ids: tuple[str, ...] = ()
    held: str = ""  # by whom as what, when it is held in another form


@dataclass(frozen=True, slots=True)
class ResourcePool:
    """The advertised devices of one resource name: `devices` are its devices or cards in
    bus order, without their replicas; with `monitoring`, units that stand for no device."""

    name: str
    resource: Resource
    devices: tuple[AdvertisedDevice, ...]
    monitoring: bool = False

    def advertised(self) -> tuple[AdvertisedDevice, ...]:
        """Everything advertised under the name: `devices`, or all replicas of them."""
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
    """Every device that was ever seen, in bus order, under the name it has: one that is
    gone or unhealthy stays listed as unhealthy, so that capacity and allocatable tell the
    two apart. No device is in two pools."""
    pools: dict[str, ResourcePool] = {}
    unassigned: dict[str, list[str]] = {}  # device ids by reason
    for resource in resources:
        by_name: dict[str, list[AdvertisedDevice]] = {}
        for advertised_id, devices in _candidates(resource, state.snapshot.devices):
            name = resource.name_for(devices[0].product)
            why = _why_not(resource, advertised_id, devices, name)
            if why:
                ids = [device.id for device in devices if _meant(resource, device)]
                unassigned.setdefault(why, []).extend(ids)
            elif name is not None:
                by_name.setdefault(name, []).append(_advertised(advertised_id, devices, state))
        for name, advertised in by_name.items():
            if name in pools:
                ids = [i for device in advertised for i in device.device_ids]
                unassigned.setdefault(f"another resource has the name {name}", []).extend(ids)
            else:
                pools[name] = ResourcePool(name, resource, tuple(advertised))
    return tuple(pools.values()), tuple(
        UnassignedDevices(tuple(ids), why) for why, ids in unassigned.items()
    )


def devices_of(state: NodeState, resources: Sequence[Resource]) -> frozenset[str]:
    """The ids of the devices that are selected by one of them for certain: what is not known
    of a device keeps it out."""
    return frozenset(
        device.id
        for device in state.snapshot.devices
        for resource in resources
        if resource.select.admits(device)
        and not resource.exclude.catches(device)
        and not resource.exclude.unknown(device)
    )


def _candidates(
    resource: Resource, devices: Sequence[Device]
) -> Iterable[tuple[str, tuple[Device, ...]]]:
    """What the resource could advertise, by its id, with its devices: all of which at least
    one is meant for it, as far as that is known."""
    groups = (
        [(card.id, card.devices) for card in cards_of(devices)]
        if resource.granularity == "card"
        else [(device.id, (device,)) for device in devices]
    )
    for advertised_id, members in groups:
        if any(_meant(resource, device) for device in members):
            yield advertised_id, members


def _meant(resource: Resource, device: Device) -> bool:
    return resource.select.may_admit(device) and not resource.exclude.catches(device)


def _why_not(
    resource: Resource, advertised_id: str, devices: Sequence[Device], name: str | None
) -> str:
    """Why the devices are not advertised; empty if they are. What is not known excludes: a
    device that was meant to be kept out must not be given out until mx-smi has answered."""
    if not all(_meant(resource, device) for device in devices):
        return f"only some chips of {advertised_id} are selected, and {resource} has whole cards"
    for selector, verb in ((resource.exclude, "excludes"), (resource.select, "selects")):
        for fact in (fact for device in devices for fact in selector.unknown(device)):
            return f"their {fact} is not known, and {resource} {verb} by it"
    return "" if name is not None else "their product is not known, and names it"


def _advertised(
    advertised_id: str, devices: Sequence[Device], state: NodeState
) -> AdvertisedDevice:
    numa_nodes = {device.numa_node for device in devices}
    return AdvertisedDevice(
        advertised_id,
        all(state.healthy(device.id) for device in devices),
        numa_nodes.pop() if len(numa_nodes) == 1 else None,
        tuple(device.id for device in devices),
    )


# -- checks of a configuration --------------------------------------------------------


def check_resource_name(name: str, key: str = "--resource-name") -> str:
    """Raises ConfigurationError unless a kubelet accepts it: IsExtendedResourceName of
    Kubernetes, which takes it for the name of a quota, too, with `requests.` before it."""
    domain, slash, resource = name.partition("/")
    valid = (
        slash
        and _DOMAIN.fullmatch(domain)
        and _NAME.fullmatch(resource)
        and len(f"{_QUOTA_PREFIX}{domain}") <= _LONGEST_DOMAIN
        and len(resource) <= _LONGEST_NAME
    )
    if not valid or name.startswith(_QUOTA_PREFIX) or "kubernetes.io/" in name:
        longest = _LONGEST_DOMAIN - len(_QUOTA_PREFIX)
        remedy = f"use DOMAIN/NAME outside kubernetes.io, such as {DEFAULT_RESOURCE}"
        if len(domain) > longest or len(resource) > _LONGEST_NAME:
            remedy += f"; DOMAIN has up to {longest} characters, NAME up to {_LONGEST_NAME}"
        raise ConfigurationError(key, name, remedy)
    return name


def variable_suffix(resource: str) -> str:
    """A resource's name in the names of environment variables: MOFFETT_AI_SPU."""
    return re.sub(r"[^A-Z0-9]", "_", resource.upper())


def check_disjoint(resources: Sequence[Resource], keys: Sequence[str]) -> None:
    """Raises ConfigurationError that names the pair unless no device, whatever a node
    has, can be in two of them. `keys` says where each of them was configured."""
    for number, resource in enumerate(resources):
        for other, key in zip(resources[:number], keys, strict=False):
            named = "dra" not in (resource.api, other.api)
            if named and resource.name == other.name and resource.name is not None:
                remedy = f"{key} has this name already; give each resource a name of its own"
                raise ConfigurationError(f"{keys[number]}.name", str(resource), remedy)
            names = resource.name, other.name
            if named and all(names) and len({variable_suffix(str(name)) for name in names}) == 1:
                remedy = f"its environment variables would have the names of those of {key}"
                raise ConfigurationError(f"{keys[number]}.name", str(resource), remedy)
            if named and not any(names) and str(resource) == str(other):
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
