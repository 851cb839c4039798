"""Which pods hold which devices, from the kubelet's pod-resources socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


class PodResourcesError(Exception):
    """The kubelet did not answer; one line says why."""


async def list_holders(socket: Path = SOCKET, timeout: float = 2.0) -> Holders:
    """Asks once, in at most `timeout` seconds for each version of the API. Of all
    resources, other vendors' too. Raises PodResourcesError."""
    try:
        async with await Channel.connect(socket) as channel:
            answer = await _list(channel, timeout)
    except OSError as error:
        raise PodResourcesError(f"{socket}: {error.strerror or error}") from error
    except StatusError as error:
        raise PodResourcesError(f"{socket}: {error}") from error
    try:
        return holders_of(answer)
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


def holders_of(answer: bytes) -> Holders:
    """The kubelet's answer by resource and advertised device, holders in the kubelet's own order.
    Raises DecodeError."""
    held: dict[str, dict[str, list[Holder]]] = {}
    for pod in pb.ListPodResourcesResponse.FromString(answer).pod_resources:
        for container in pod.containers:
            holder = Holder(pod.namespace, pod.name, container.name)
            for devices in container.devices:
                by_id = held.setdefault(devices.resource_name, {})
                for advertised_id in devices.device_ids:
                    holders = by_id.setdefault(advertised_id, [])
                    if holder not in holders:
                        holders.append(holder)
    return {
        resource: {advertised_id: tuple(holders) for advertised_id, holders in by_id.items()}
        for resource, by_id in held.items()
    }
