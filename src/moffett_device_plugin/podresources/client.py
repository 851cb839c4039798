"""Which pods hold which devices, from the kubelet's pod-resources socket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from ..api import podresources_pb2 as pb
from ..grpc.client import Channel
from ..grpc.messages import Code, StatusError

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
#: The newest first; kubelets before 1.20 know only the second.
METHODS = ("/v1.PodResourcesLister/List", "/v1alpha1.PodResourcesLister/List")


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that holds an advertised device."""

    namespace: str
    pod: str
    container: str


#: Resource name -> id of the advertised device -> who holds it. A kubelet lists a pod until
#: it is deleted, so a device has two holders while one of them is a finished pod that has
#: not been deleted.
Holders = Mapping[str, Mapping[str, tuple[Holder, ...]]]


@dataclass(frozen=True, slots=True)
class ClaimUse:
    """A container that uses a device of a claim: of any driver, and by the driver's own
    names of its pool and device. `cdi_devices` are what the driver gave for it."""

    holder: Holder
    namespace: str  # of the claim
    name: str
    driver: str
    pool: str
    device: str
    cdi_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the kubelet lists. `claims` is empty for kubelets before 1.34, and for claims
    that no container refers to."""

    devices: Holders = field(default_factory=dict)
    claims: tuple[ClaimUse, ...] = ()


class PodResourcesError(Exception):
    """The kubelet did not answer; one line says why."""


async def list_holders(socket: Path = SOCKET, timeout: float = 2.0) -> Holders:
    """Who holds what through the device plugin API; otherwise as `list_holdings`."""
    return (await list_holdings(socket, timeout)).devices


async def list_holdings(socket: Path = SOCKET, timeout: float = 2.0) -> Holdings:
    """Asks once, in at most `timeout` seconds for each version of the API. Of all
    resources and drivers, other vendors' too. Raises PodResourcesError."""
    try:
        async with await Channel.connect(socket) as channel:
            answer = await _list(channel, timeout)
    except OSError as error:
        raise PodResourcesError(f"{socket}: {error.strerror or error}") from error
    except StatusError as error:
        raise PodResourcesError(f"{socket}: {error}") from error
    try:
        return holdings_of(answer)
    except DecodeError as error:
        raise PodResourcesError(f"{socket}: not a list of pods: {error}") from error


async def _list(channel: Channel, timeout: float) -> bytes:
    request = pb.ListPodResourcesRequest().SerializeToString()
    *newer, oldest = METHODS
    for method in newer:
        try:
            return await channel.unary(method, request, timeout)
        except StatusError as error:
            if error.code is not Code.UNIMPLEMENTED:
                raise
    return await channel.unary(oldest, request, timeout)


def holdings_of(answer: bytes) -> Holdings:
    """The kubelet's answer, in its own order. Raises DecodeError."""
    held: dict[str, dict[str, list[Holder]]] = {}
    claims: list[ClaimUse] = []
    for pod in pb.ListPodResourcesResponse.FromString(answer).pod_resources:
        for container in pod.containers:
            holder = Holder(pod.namespace, pod.name, container.name)
            claims += _claim_uses(container, holder)
            for devices in container.devices:
                by_id = held.setdefault(devices.resource_name, {})
                for advertised_id in devices.device_ids:
                    holders = by_id.setdefault(advertised_id, [])
                    if holder not in holders:
                        holders.append(holder)
    return Holdings(
        {
            resource: {advertised_id: tuple(holders) for advertised_id, holders in by_id.items()}
            for resource, by_id in held.items()
        },
        tuple(claims),
    )


def _claim_uses(container: pb.ContainerResources, holder: Holder) -> Iterator[ClaimUse]:
    for claim in container.dynamic_resources:
        for one in claim.claim_resources:
            yield ClaimUse(
                holder,
                claim.claim_namespace,
                claim.claim_name,
                one.driver_name,
                one.pool_name,
                one.device_name,
                tuple(device.name for device in one.cdi_devices),
            )
