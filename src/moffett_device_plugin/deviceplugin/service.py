"""The five calls of the device plugin API, for one resource."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from .. import api
from ..allocation.allocate_result import AllocateResult, RefusalError, UnknownDeviceError
from ..allocation.placement import PlacementError
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.messages import Code, StatusError
from ..grpc.server import Method, Streaming, Unary
from ..resources.plugin_config import PluginOptions
from ..resources.pools import AdvertisedDevice
from ..runtime.counters import ResourceCounters
from ..runtime.watchable import Watchable

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)

AdvertisedDevices = tuple[AdvertisedDevice, ...]


class Allocator(Protocol):
    """Decides for a resource, at the moment it is asked."""

    def prefer(
        self, available: Sequence[str], must_include: Sequence[str], size: int
    ) -> Sequence[str]:
        """The best `size` ids. Raises PlacementError."""

    def allocate(self, ids: Sequence[str]) -> AllocateResult:
        """What a container gets. Raises RefusalError."""

    async def check(self, ids: Sequence[str]) -> None:
        """A last look before a container starts. Raises RefusalError."""


@dataclass(slots=True)
class StreamCount:
    """Who listens through one socket: the ListAndWatch calls that began and ended."""

    started: int = 0
    ended: int = 0

    @property
    def streams(self) -> int:
        return self.started - self.ended


class DevicePluginService:
    """Answers the kubelet from `advertised` and `allocator`; `allocated` is called after
    each container that was given devices.

    `streams` is how many kubelets listen now; `started` and `ended` count the
    ListAndWatch calls that ever did.
    """

    def __init__(
        self,
        resource: str,
        advertised: Watchable[AdvertisedDevices],
        allocator: Allocator,
        options: Callable[[], PluginOptions] = PluginOptions,
        counters: ResourceCounters | None = None,
        allocated: Callable[[], object] = lambda: None,
    ) -> None:
        self._resource = resource
        self._advertised = advertised
        self._allocator = allocator
        self._plugin_options = options
        self._counters = counters or ResourceCounters()
        self._allocated = allocated
        self.started = 0
        self.ended = 0
        self.changed: Watchable[int] = Watchable(0)  # streams alive

    @property
    def streams(self) -> int:
        return self.started - self.ended

    def methods(self, stream_count: StreamCount | None = None) -> Mapping[str, Method]:
        """For one socket, whose `audience` is counted."""
        return {
            api.GET_OPTIONS: Unary(self._options),
            api.LIST_AND_WATCH: Streaming(
                partial(self._list_and_watch, stream_count or StreamCount())
            ),
            api.GET_PREFERRED_ALLOCATION: Unary(self._preferred),
            api.ALLOCATE: Unary(self._allocate),
            api.PRE_START_CONTAINER: Unary(self._pre_start),
        }

    def _options(self, request: bytes) -> bytes:
        _parsed(pb.Empty, request)
        return options_of(self._plugin_options()).SerializeToString()

    async def _list_and_watch(
        self, stream_count: StreamCount, request: bytes
    ) -> AsyncIterator[bytes]:
        _parsed(pb.Empty, request)
        stream_count.started += 1
        self.started += 1
        self.changed.set(self.streams)
        try:
            version, told = -1, None
            while True:
                advertised, version = await self._advertised.after(version)
                if advertised != told:
                    told = advertised
                    self._counters.list_and_watch_updates += 1
                    yield response_of(advertised)
        finally:
            stream_count.ended += 1
            self.ended += 1
            self.changed.set(self.streams)

    def _preferred(self, request: bytes) -> bytes:
        began = time.perf_counter()
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
                self._counters.placement_rejections += 1
                log.warning("placement-refused", extra={"resource": self._resource, "why": error})
                raise StatusError(Code.INVALID_ARGUMENT, str(error)) from error
            response.container_responses.add(deviceIDs=ids)
            log.debug(
                "placement",
                extra={
                    "resource": self._resource,
                    "size": container.allocation_size,
                    "devices": ids,
                },
            )
        self._counters.placement_seconds.observe(time.perf_counter() - began)
        return response.SerializeToString()

    def _allocate(self, request: bytes) -> bytes:
        began = time.perf_counter()
        parsed = _parsed(pb.AllocateRequest, request)
        response = pb.AllocateResponse()
        for container in parsed.container_requests:
            ids = sorted(container.devices_ids)  # kubelets send them in random order
            try:
                granted = self._allocator.allocate(ids)
            except RefusalError as error:
                self._counters.allocation_rejections += 1
                raise self._refusal("allocation-refused", ids, error) from error
            fill(response.container_responses.add(), granted)
            self._counters.allocations += 1
            # The line is written after the answer: no kubelet has to wait for it.
            fields = {"resource": self._resource, "devices": ids}
            loop = asyncio.get_running_loop()
            loop.call_soon(partial(log.info, "allocated", extra=fields))
            loop.call_soon(self._allocated)
        self._counters.allocate_seconds.observe(time.perf_counter() - began)
        return response.SerializeToString()

    async def _pre_start(self, request: bytes) -> bytes:
        ids = sorted(_parsed(pb.PreStartContainerRequest, request).devices_ids)
        # Some kubelets may call it although the options do not ask for it.
        if self._plugin_options().pre_start:
            try:
                await self._allocator.check(ids)
            except RefusalError as error:
                self._counters.pre_start_rejections += 1
                raise self._refusal("start-refused", ids, error) from error
        return pb.PreStartContainerResponse().SerializeToString()

    def _refusal(self, event: str, ids: Sequence[str], error: RefusalError) -> StatusError:
        log.warning(event, extra={"resource": self._resource, "devices": ids, "why": error})
        unknown = isinstance(error, UnknownDeviceError)
        return StatusError(Code.NOT_FOUND if unknown else Code.FAILED_PRECONDITION, str(error))


def options_of(options: PluginOptions) -> pb.DevicePluginOptions:
    return pb.DevicePluginOptions(
        pre_start_required=options.pre_start,
        get_preferred_allocation_available=options.preferred_allocation,
    )


def fill(answer: pb.ContainerAllocateResponse, granted: AllocateResult) -> None:
    """Writes a grant as the kubelet takes it."""
    answer.envs.update(granted.envs)
    for node in granted.nodes:
        answer.devices.add(
            host_path=node.host_path,
            container_path=node.container_path,
            permissions=node.permissions,
        )
    for mount in granted.mounts:
        answer.mounts.add(
            host_path=mount.host_path, container_path=mount.container_path, read_only=True
        )
    answer.annotations.update(granted.annotations)
    for name in granted.cdi_devices:
        answer.cdi_devices.add(name=name)


def response_of(advertised: AdvertisedDevices) -> bytes:
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
