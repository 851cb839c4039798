"""The five calls of the device plugin API, for one resource."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from .. import api
from ..allocation.grant import Grant, RefusalError, UnknownDeviceError
from ..allocation.placement import PlacementError
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.messages import Code, StatusError
from ..grpc.server import Method, Streaming, Unary
from ..latest import Latest
from ..resources import AdvertisedDevice

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)

Advertisement = tuple[AdvertisedDevice, ...]


class Allocator(Protocol):
    """Decides for a resource, at the moment it is asked."""

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        """The best `size` ids. Raises PlacementError."""

    def grant(self, ids: Sequence[str]) -> Grant:
        """What a container gets. Raises RefusalError."""


class DevicePluginService:
    """Answers the kubelet from `advertised` and `allocator`.

    `streams` is how many kubelets listen now; `started` and `ended` count the
    ListAndWatch calls that ever did.
    """

    def __init__(self, advertised: Latest[Advertisement], allocator: Allocator) -> None:
        self._advertised = advertised
        self._allocator = allocator
        self.started = 0
        self.ended = 0
        self.changed: Latest[int] = Latest(0)  # streams alive

    @property
    def streams(self) -> int:
        return self.started - self.ended

    def methods(self) -> Mapping[str, Method]:
        return {
            api.GET_OPTIONS: Unary(self._options),
            api.LIST_AND_WATCH: Streaming(self._list_and_watch),
            api.GET_PREFERRED_ALLOCATION: Unary(self._preferred),
            api.ALLOCATE: Unary(self._allocate),
            api.PRE_START_CONTAINER: Unary(self._pre_start),
        }

    def _options(self, request: bytes) -> bytes:
        _parsed(pb.Empty, request)
        options = pb.DevicePluginOptions(get_preferred_allocation_available=True)
        return options.SerializeToString()

    async def _list_and_watch(self, request: bytes) -> AsyncIterator[bytes]:
        _parsed(pb.Empty, request)
        self.started += 1
        self.changed.set(self.streams)
        try:
            version, told = -1, None
            while True:
                advertised, version = await self._advertised.after(version)
                if advertised != told:
                    told = advertised
                    yield response_of(advertised)
        finally:
            self.ended += 1
            self.changed.set(self.streams)

    def _preferred(self, request: bytes) -> bytes:
        parsed = _parsed(pb.PreferredAllocationRequest, request)
        response = pb.PreferredAllocationResponse()
        for container in parsed.container_requests:
            try:
                ids = self._allocator.prefer(
                    container.available_deviceIDs,
                    container.must_include_deviceIDs,
                    container.allocation_size,
                )
            except PlacementError as error:
                log.warning("placement-refused", extra={"why": error})
                raise StatusError(Code.INVALID_ARGUMENT, str(error)) from error
            response.container_responses.add(deviceIDs=ids)
            log.debug("placement", extra={"size": container.allocation_size, "devices": ids})
        return response.SerializeToString()

    def _allocate(self, request: bytes) -> bytes:
        parsed = _parsed(pb.AllocateRequest, request)
        response = pb.AllocateResponse()
        for container in parsed.container_requests:
            ids = sorted(container.devices_ids)  # kubelets send them in random order
            try:
                granted = self._allocator.grant(ids)
            except RefusalError as error:
                log.warning("allocation-refused", extra={"devices": ids, "why": error})
                unknown = isinstance(error, UnknownDeviceError)
                code = Code.NOT_FOUND if unknown else Code.FAILED_PRECONDITION
                raise StatusError(code, str(error)) from error
            answer = response.container_responses.add(envs=granted.envs)
            for node in granted.nodes:
                answer.devices.add(
                    host_path=node.host_path,
                    container_path=node.container_path,
                    permissions=node.permissions,
                )
            # The line is written after the answer: no kubelet has to wait for it.
            write = partial(log.info, "allocated", extra={"devices": ids})
            asyncio.get_running_loop().call_soon(write)
        return response.SerializeToString()

    def _pre_start(self, request: bytes) -> bytes:
        # Not asked for in the options; some kubelets may call it all the same.
        _parsed(pb.PreStartContainerRequest, request)
        return pb.PreStartContainerResponse().SerializeToString()


def response_of(advertised: Advertisement) -> bytes:
    """The list as the kubelet takes it. No topology without a NUMA node: an empty
    one would be taken for a promise that every node is as good."""
    response = pb.ListAndWatchResponse()
    for device in advertised:
        added = response.devices.add(
            ID=device.id, health=api.HEALTHY if device.healthy else api.UNHEALTHY
        )
        if device.numa_node is not None:
            added.topology.nodes.add(ID=device.numa_node)
    return response.SerializeToString()


def _parsed(kind: type[M], request: bytes) -> M:
    try:
        return kind.FromString(request)
    except DecodeError as error:
        name = kind.DESCRIPTOR.name
        raise StatusError(Code.INVALID_ARGUMENT, f"not a {name}: {error}") from error
