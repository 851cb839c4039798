"""The device manager of a kubelet, as plugins see it, without the rest."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.client import Channel
from ..grpc.messages import Code, StatusError
from ..grpc.server import Server, Unary
from ..latest import Latest

log = logging.getLogger(__name__)

DIAL_TIMEOUT = 10.0


class AdmissionError(Exception):
    """A pod that is refused for good, with the text its status would show."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that was admitted: which devices it holds, and what it was given."""

    name: str
    resource: str
    device_ids: tuple[str, ...]
    response: pb.ContainerAllocateResponse


@dataclass(slots=True)
class _Endpoint:
    channel: Channel | None = None
    options: pb.DevicePluginOptions = field(default_factory=pb.DevicePluginOptions)


@dataclass(slots=True)
class _Resource:
    endpoint: _Endpoint
    devices: dict[str, pb.Device] = field(default_factory=dict)


class StandInKubelet:
    """Owns `directory`; `start` and `kill` may follow each other any number of times.

    Pods survive restarts, as the real kubelet's checkpoint makes them. `changed`
    counts up with everything that a test could wait for.
    """

    def __init__(self, directory: Path, tasks: asyncio.TaskGroup, seed: int = 0) -> None:
        self.directory = directory
        self.pods: dict[str, Pod] = {}
        self.registrations: list[pb.RegisterRequest] = []
        self.dial_failures: list[str] = []
        self.lists: Latest[int] = Latest(0)  # device lists received
        self.changed: Latest[int] = Latest(0)
        self._tasks = tasks
        self._random = random.Random(seed)  # noqa: S311  (an order, no secret)
        self._resources: dict[str, _Resource] = {}
        self._server: Server | None = None
        self._listener: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def socket(self) -> Path:
        return self.directory / api.KUBELET_SOCKET

    async def start(self) -> None:
        """Deletes all but the checkpoint from the directory, then makes the socket."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for entry in self.directory.iterdir():
            if entry.name != api.KUBELET_CHECKPOINT and not entry.is_dir():
                entry.unlink(missing_ok=True)
        self._server = Server({api.REGISTER: Unary(self._register)}, self._tasks)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self.socket))
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._server.protocol, sock=listening)

    def kill(self) -> None:
        """Ends as by SIGKILL: every connection breaks and the dead socket stays."""
        if self._listener is not None and self._server is not None:
            dead = self.directory / ".dead"
            # The event loop of newer Pythons removes a socket that it closes.
            self.socket.rename(dead)
            self._listener.close()
            self._server.close()
            with suppress(FileNotFoundError):
                dead.rename(self.socket)
        self._listener = self._server = None
        for task in self._calls:
            task.cancel()
        for resource in self._resources.values():
            if resource.endpoint.channel is not None:
                resource.endpoint.channel.close()
        self._resources.clear()
        self._bump()

    # -- what the node object would show ----------------------------------------------

    def capacity(self, resource: str) -> int:
        found = self._resources.get(resource)
        return len(found.devices) if found else 0

    def allocatable(self, resource: str) -> int:
        return len(self.healthy_ids(resource))

    def healthy_ids(self, resource: str) -> list[str]:
        found = self._resources.get(resource)
        devices = found.devices.values() if found else ()
        return sorted(device.ID for device in devices if device.health == api.HEALTHY)

    async def until_allocatable(self, resource: str, count: int) -> None:
        """Returns when exactly `count` devices of it are allocatable."""
        version = -1
        while self.allocatable(resource) != count:
            _, version = await self.changed.after(max(version, self.changed.version))

    # -- pods -------------------------------------------------------------------------

    async def admit(self, name: str, resource: str, count: int) -> Pod:
        """Raises AdmissionError, as a real kubelet fails the pod for good."""
        found = self._resources.get(resource)
        held = {i for pod in self.pods.values() if pod.resource == resource for i in pod.device_ids}
        free = [i for i in self.healthy_ids(resource) if i not in held]
        if found is None or found.endpoint.channel is None or len(free) < count:
            raise AdmissionError(
                f"Allocate failed due to requested number of devices unavailable for {resource}. "
                f"Requested: {count}, Available: {len(free)}, which is unexpected"
            )
        self._random.shuffle(free)
        try:
            chosen = await self._preferred(found, free, count)
            self._random.shuffle(chosen)
            request = pb.AllocateRequest(
                container_requests=[pb.ContainerAllocateRequest(devices_ids=chosen)]
            )
            raw = await found.endpoint.channel.unary(
                api.ALLOCATE, request.SerializeToString(), DIAL_TIMEOUT
            )
        except StatusError as error:
            raise AdmissionError(
                "Allocate failed due to rpc error: "
                f"code = {error.code.name} desc = {error.text}, which is unexpected"
            ) from error
        response = pb.AllocateResponse.FromString(raw).container_responses[0]
        pod = self.pods[name] = Pod(name, resource, tuple(sorted(chosen)), response)
        return pod

    def delete(self, name: str) -> None:
        self.pods.pop(name, None)

    async def _preferred(self, found: _Resource, free: list[str], count: int) -> list[str]:
        if not found.endpoint.options.get_preferred_allocation_available:
            return free[:count]
        request = pb.PreferredAllocationRequest(
            container_requests=[
                pb.ContainerPreferredAllocationRequest(
                    available_deviceIDs=free, allocation_size=count
                )
            ]
        )
        assert found.endpoint.channel is not None  # noqa: S101  (checked by admit)
        raw = await found.endpoint.channel.unary(
            api.GET_PREFERRED_ALLOCATION, request.SerializeToString(), DIAL_TIMEOUT
        )
        ids = pb.PreferredAllocationResponse.FromString(raw).container_responses[0].deviceIDs
        return list(ids)

    # -- plugins ------------------------------------------------------------------------

    def _register(self, raw: bytes) -> bytes:
        request = pb.RegisterRequest.FromString(raw)
        if request.version != api.VERSION:
            raise StatusError(
                Code.UNKNOWN,
                f'requested API version "{request.version}" is not supported by kubelet. '
                f'Supported version is ["{api.VERSION}"]',
            )
        if not _is_extended_resource(request.resource_name):
            raise StatusError(
                Code.UNKNOWN, f'the ResourceName "{request.resource_name}" is invalid'
            )
        self.registrations.append(request)
        task = self._tasks.create_task(self._dial(request))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        self._bump()
        return pb.Empty().SerializeToString()

    async def _dial(self, request: pb.RegisterRequest) -> None:
        path = self.directory / request.endpoint
        endpoint = _Endpoint(options=request.options)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                # Kubelets before 1.26 send the socket's path as the authority.
                endpoint.channel = await Channel.connect(path, authority=str(path))
        except OSError as error:  # a time-out is one, too
            self.dial_failures.append(f"{path}: {error}")
            self._bump()
            return
        resource = self._resources.setdefault(request.resource_name, _Resource(endpoint))
        resource.endpoint = endpoint
        try:
            async with endpoint.channel as channel:
                async for raw in channel.stream(api.LIST_AND_WATCH, b""):
                    listed = pb.ListAndWatchResponse.FromString(raw).devices
                    resource.devices = {device.ID: device for device in listed}
                    self.lists.set(self.lists.value + 1)
                    self._bump()
        except StatusError as error:
            log.debug("list-and-watch-ended", extra={"why": error})
        finally:
            # The end of whoever registered last is the end of the resource.
            if resource.endpoint is endpoint:
                for device in resource.devices.values():
                    device.health = api.UNHEALTHY
                endpoint.channel = None
            self._bump()

    def _bump(self) -> None:
        self.changed.set(self.changed.value + 1)


def _is_extended_resource(name: str) -> bool:
    domain, _, rest = name.partition("/")
    return bool(re.fullmatch(r"[a-z0-9.-]+", domain) and re.fullmatch(r"[\w.-]{1,63}", rest))


def nodes_given(response: pb.ContainerAllocateResponse) -> Sequence[str]:
    """The device paths that the container would see."""
    return [device.container_path for device in response.devices]
