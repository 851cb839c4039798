"""The five calls of the device plugin API, for one resource."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
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
from ..resources.plugin_config import PluginOptions, PluginSpec
from ..resources.pools import AdvertisedDevice
from ..runtime.counters import ResourceCounters
from ..runtime.watchable import Watchable

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)


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
    """The ListAndWatch calls that began and ended at one socket, and whether
    GetDevicePluginOptions was called there."""

    started: int = 0
    ended: int = 0
    options_asked: bool = False

    @property
    def streams(self) -> int:
        return self.started - self.ended


class DevicePluginService:
    """Answers the kubelet from `spec` and `allocator`.

    `streams` is how many kubelets listen now; `started` and `ended` count the
    ListAndWatch calls that ever did.
    """

    def __init__(
        self,
        spec: Watchable[PluginSpec],
        allocator: Allocator,
        counters: ResourceCounters | None = None,
    ) -> None:
        self._spec = spec
        self._allocator = allocator
        self._counters = counters or ResourceCounters()
        self.started = 0
        self.ended = 0
        self.changed: Watchable[int] = Watchable(0)  # streams alive

    @property
    def streams(self) -> int:
        return self.started - self.ended

    @property
    def _resource(self) -> str:
        return self._spec.value.pool.name

    def methods(
        self, stream_count: StreamCount | None = None, *, refuse: str = ""
    ) -> Mapping[str, Method]:
        """For one socket, whose calls are counted. With `refuse`, GetDevicePluginOptions
        answers this error."""
        count = stream_count or StreamCount()
        return {
            api.GET_OPTIONS: Unary(partial(self._options, count, refuse)),
            api.LIST_AND_WATCH: Streaming(partial(self._list_and_watch, count)),
            api.GET_PREFERRED_ALLOCATION: Unary(self._preferred),
            api.ALLOCATE: Unary(self._allocate),
            api.PRE_START_CONTAINER: Unary(self._pre_start),
        }

    def _options(self, count: StreamCount, refuse: str, request: bytes) -> bytes:
        _parsed(pb.Empty, request)
        count.options_asked = True
        if refuse:
            raise StatusError(Code.FAILED_PRECONDITION, refuse)
        return options_of(self._spec.value.options).SerializeToString()

    async def _list_and_watch(
        self, stream_count: StreamCount, request: bytes
    ) -> AsyncIterator[bytes]:
        _parsed(pb.Empty, request)
        stream_count.started += 1
        self.started += 1
        self.changed.set(self.streams)
        try:
            version, sent = -1, None
            while True:
                spec, version = await self._spec.after(version)
                advertised = spec.advertised
                if advertised != sent:
                    sent = advertised
                    self._counters.list_and_watch_updates += 1
                    yield response_of(advertised)
        finally:
            stream_count.ended += 1
            self.ended += 1
            self.changed.set(self.streams)

    def _preferred(self, request: bytes) -> bytes:
        """A hint: an error here would fail the pod for good, so there is always an answer."""
        began = time.perf_counter()
        parsed = _parsed(pb.PreferredAllocationRequest, request)
        response = pb.PreferredAllocationResponse()
        for container in parsed.container_requests:
            available, size = container.available_deviceIDs, container.allocation_size
            must_include = container.must_include_deviceIDs
            fields = {"resource": self._resource, "size": size}
            try:
                ids = self._allocator.prefer(available, must_include, size)
                log.debug("placement", extra={**fields, "devices": ids})
            except Exception as error:
                self._counters.placement_rejections += 1
                ids = first_available(available, must_include, size)
                effect = {"effect": "the first available devices are preferred"}
                # Of what was not foreseen, there is all there is to know.
                unforeseen = None if isinstance(error, PlacementError) else error
                why = str(error) or type(error).__name__
                log.warning(
                    "placement-failed", extra={**fields, "why": why, **effect}, exc_info=unforeseen
                )
            response.container_responses.add(deviceIDs=ids)
        self._counters.placement_seconds.observe(time.perf_counter() - began)
        return response.SerializeToString()

    def _allocate(self, request: bytes) -> bytes:
        began = time.perf_counter()
        parsed = _parsed(pb.AllocateRequest, request)
        response = pb.AllocateResponse()
        for container in parsed.container_requests:
            ids = sorted(container.devices_ids)  # kubelets send them in random order
            try:
                result = self._allocator.allocate(ids)
            except RefusalError as error:
                self._counters.allocation_rejections += 1
                raise self._refusal("allocation-refused", ids, error) from error
            fill(response.container_responses.add(), result)
            self._counters.allocations += 1
            # The line is written after the answer: no kubelet has to wait for it.
            fields = {"resource": self._resource, "devices": ids}
            asyncio.get_running_loop().call_soon(partial(log.info, "allocated", extra=fields))
        self._counters.allocate_seconds.observe(time.perf_counter() - began)
        return response.SerializeToString()

    async def _pre_start(self, request: bytes) -> bytes:
        ids = sorted(_parsed(pb.PreStartContainerRequest, request).devices_ids)
        # Some kubelets may call it although the options do not ask for it.
        if self._spec.value.options.pre_start:
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


def first_available(
    available: Sequence[str], must_include: Sequence[str], size: int
) -> Sequence[str]:
    """All of `must_include` and the first of the others, up to `size` ids."""
    chosen = dict.fromkeys([*must_include, *sorted(available)])
    return list(chosen)[: max(size, len(set(must_include)))]


def options_of(options: PluginOptions) -> pb.DevicePluginOptions:
    return pb.DevicePluginOptions(
        pre_start_required=options.pre_start,
        get_preferred_allocation_available=options.preferred_allocation,
    )


def fill(answer: pb.ContainerAllocateResponse, result: AllocateResult) -> None:
    """Writes the result as the kubelet takes it."""
    answer.envs.update(result.envs)
    for node in result.nodes:
        answer.devices.add(
            host_path=node.host_path,
            container_path=node.container_path,
            permissions=node.permissions,
        )
    for mount in result.mounts:
        answer.mounts.add(
            host_path=mount.host_path, container_path=mount.container_path, read_only=True
        )
    answer.annotations.update(result.annotations)
    for name in result.cdi_devices:
        answer.cdi_devices.add(name=name)


def response_of(advertised: Sequence[AdvertisedDevice]) -> bytes:
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
