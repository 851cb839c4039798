"""The device manager of a kubelet, as plugins see it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.client import Channel
from ..grpc.messages import Code, StatusError
from ..grpc.server import Server, Unary
from ..runtime.watchable import Watchable
from .behaviour import DEFAULT, Behaviour
from .endpoints import Endpoint, Resource
from .registration_server import RegistrationServer, clear_directory
from .rules import check_request

log = logging.getLogger(__name__)

DIAL_TIMEOUT = 10.0


class AdmissionError(Exception):
    """A pod that was refused, with the text that its status would show."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that was admitted: its advertised devices, and the answer to Allocate."""

    name: str
    resource: str
    device_ids: tuple[str, ...]
    response: pb.ContainerAllocateResponse


class FakeKubelet:
    """Owns `directory`; `start` and `kill` may follow each other any number of times.

    Pods survive restarts, as with a real kubelet's checkpoint. `changed` counts up with
    every event that a test could wait for. `behaviour` may be replaced at any time and
    applies to the calls that follow.
    """

    def __init__(
        self,
        directory: Path,
        tasks: asyncio.TaskGroup,
        seed: int = 0,
        behaviour: Behaviour = DEFAULT,
    ) -> None:
        self.directory = directory
        self.behaviour = behaviour
        self.pods: dict[str, Pod] = {}
        self.registrations: list[pb.RegisterRequest] = []
        self.registered_at: list[float] = []  # time.perf_counter of each
        self.dial_failures: list[str] = []
        self.lists: Watchable[int] = Watchable(0)  # device lists received
        self.changed: Watchable[int] = Watchable(0)
        self._tasks = tasks
        self._random = random.Random(seed)  # noqa: S311  (an order, no secret)
        self._resources: dict[str, Resource] = {}
        self._registration = RegistrationServer(self.socket, tasks)
        self._serving: list[Server] = []  # their connections may still be open
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def socket(self) -> Path:
        return self.directory / api.KUBELET_SOCKET

    @property
    def running(self) -> bool:
        return self._registration.server is not None

    async def start(self, *, wipe: bool = True) -> None:
        """Deletes all but the checkpoint from the directory, then creates the socket.

        Without `wipe` only its own old socket is deleted, which no real kubelet does.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        clear_directory(self.directory, others=wipe)
        self._registration.open(Server({api.REGISTER: Unary(self._register)}, self._tasks))

    def stop_accepting(self) -> None:
        """Accepts no new connections and keeps those that exist, as a process that hangs."""
        if self._registration.server is not None:
            self._serving.append(self._registration.server)
        self._registration.close()

    def kill(self) -> None:
        """Ends as by SIGKILL: every connection is closed and the socket file stays."""
        self.stop_accepting()
        for server in self._serving:
            server.close()
        self._serving.clear()
        for task in self._calls:
            task.cancel()
        for resource in self._resources.values():
            resource.endpoint.close()
        self._resources.clear()
        self._notify()

    def disconnect(self, resource: str) -> None:
        """Closes the connection to its plugin."""
        found = self._resources.get(resource)
        if found is not None:
            found.endpoint.close()

    # -- what the Node object would show ----------------------------------------------

    def resources(self) -> list[str]:
        return sorted(self._resources)

    def devices(self, resource: str) -> dict[str, pb.Device]:
        """The plugin's last list, by id; empty for a resource that is not known."""
        found = self._resources.get(resource)
        return dict(found.devices) if found else {}

    def listening(self, resource: str) -> bool:
        """Whether a plugin has sent a list for it and its stream is open."""
        found = self._resources.get(resource)
        if found is None or found.lists == 0:
            return False
        # A lost connection still counts as connected where its end is ignored.
        channel = found.endpoint.channel
        return channel is not None and not channel.lost.is_set()

    def endpoint(self, resource: str) -> Path | None:
        """The socket of the plugin that registered last for it."""
        found = self._resources.get(resource)
        return None if found is None else self.directory / found.endpoint.name

    def options(self, resource: str) -> pb.DevicePluginOptions:
        found = self._resources.get(resource)
        return found.endpoint.options if found else pb.DevicePluginOptions()

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
        """Allocates `count` devices. Raises AdmissionError where a real kubelet fails the pod."""
        found = self._resources.get(resource)
        in_use = {
            i for pod in self.pods.values() if pod.resource == resource for i in pod.device_ids
        }
        free = [i for i in self.healthy_ids(resource) if i not in in_use]
        if found is None or found.endpoint.channel is None or len(free) < count:
            raise AdmissionError(
                f"Allocate failed due to requested number of devices unavailable for {resource}. "
                f"Requested: {count}, Available: {len(free)}, which is unexpected"
            )
        self._random.shuffle(free)
        try:
            chosen = await self._preferred(found, free, count)
            self._random.shuffle(chosen)
            response = await self.allocate(resource, chosen)
        except StatusError as error:
            raise AdmissionError(
                "Allocate failed due to rpc error: "
                f"code = {error.code.name} desc = {error.text}, which is unexpected"
            ) from error
        pod = self.pods[name] = Pod(name, resource, tuple(sorted(chosen)), response)
        return pod

    async def allocate(
        self, resource: str, device_ids: Sequence[str]
    ) -> pb.ContainerAllocateResponse:
        """One Allocate call for one container. Raises StatusError."""
        channel = self._resources[resource].endpoint.channel
        assert channel is not None  # noqa: S101  (the resource is connected)
        request = pb.AllocateRequest(
            container_requests=[pb.ContainerAllocateRequest(devices_ids=device_ids)]
        )
        raw = await channel.unary(api.ALLOCATE, request.SerializeToString(), DIAL_TIMEOUT)
        return pb.AllocateResponse.FromString(raw).container_responses[0]

    def delete(self, name: str) -> None:
        self.pods.pop(name, None)

    async def _preferred(self, found: Resource, free: list[str], count: int) -> list[str]:
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

    async def _register(self, raw: bytes) -> bytes:
        server = self._registration.server
        request = pb.RegisterRequest.FromString(raw)
        self.registrations.append(request)
        self.registered_at.append(time.perf_counter())
        self._notify()
        behaviour = self.behaviour
        if behaviour.register == "hang":
            await asyncio.Event().wait()
        if behaviour.register == "die":
            self.kill()
            raise StatusError(Code.UNAVAILABLE, "the kubelet was killed")
        if behaviour.register == "refuse":
            raise StatusError(Code.UNKNOWN, "the registration is refused")
        check_request(request)
        if behaviour.dial == "before-answering":
            try:
                endpoint = await self._connect(request)
            except (OSError, StatusError) as error:
                self._dial_failed(request, error)
                if (known := self._resources.get(request.resource_name)) is not None:
                    known.client = None  # removed by resource name, whichever it was
                text = f"failed to dial device plugin: {error}"
                raise StatusError(Code.UNKNOWN, text) from error
            if server is not self._registration.server:
                endpoint.close()
                raise StatusError(Code.UNAVAILABLE, "the kubelet was killed")
            self._refuse_second(request, endpoint)
            self._spawn(self._listen(self._adopt(request, endpoint), endpoint))
        elif behaviour.dial == "after-answering":
            self._spawn(self._dial(request))
        return pb.Empty().SerializeToString()

    def _refuse_second(self, request: pb.RegisterRequest, endpoint: Endpoint) -> None:
        """As kubelets from 1.37 on: the end of the first connection is then ignored."""
        resource = self._resources.get(request.resource_name)
        if self.behaviour.ends == "one" and resource and endpoint.name in resource.connected:
            endpoint.close()
            resource.connected[endpoint.name].end_ignored = True
            path = self.directory / endpoint.name
            raise StatusError(Code.UNKNOWN, f"device plugin already connected: {path}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _dial(self, request: pb.RegisterRequest) -> None:
        try:
            endpoint = await self._connect(request)
        except (OSError, StatusError) as error:
            self._dial_failed(request, error)
            return
        await self._listen(self._adopt(request, endpoint), endpoint)

    async def _connect(self, request: pb.RegisterRequest) -> Endpoint:
        """Raises OSError when nothing listens there (TimeoutError is one)."""
        path = Path(f"{self.directory}/{request.endpoint}")  # joined unchecked, as a kubelet does
        endpoint = Endpoint(request.endpoint, options=request.options)
        authority = self.behaviour.authority or str(path)
        async with asyncio.timeout(DIAL_TIMEOUT):
            endpoint.channel = await Channel.connect(path, authority=authority)
        if self.behaviour.dial == "before-answering":
            try:
                raw = await endpoint.channel.unary(api.GET_OPTIONS, b"", DIAL_TIMEOUT)
            except BaseException:
                endpoint.close()
                raise
            endpoint.options = pb.DevicePluginOptions.FromString(raw)
        return endpoint

    def _dial_failed(self, request: pb.RegisterRequest, error: Exception) -> None:
        self.dial_failures.append(f"{self.directory / request.endpoint}: {error}")
        self._notify()

    def _adopt(self, request: pb.RegisterRequest, endpoint: Endpoint) -> Resource:
        resource = self._resources.setdefault(request.resource_name, Resource(endpoint))
        resource.adopt(endpoint)
        self._notify()
        return resource

    async def _listen(self, resource: Resource, endpoint: Endpoint) -> None:
        assert endpoint.channel is not None  # noqa: S101  (made by _connect)
        try:
            async with endpoint.channel as channel:
                async for raw in channel.stream(api.LIST_AND_WATCH, b""):
                    listed = pb.ListAndWatchResponse.FromString(raw).devices
                    resource.devices = {device.ID: device for device in listed}
                    resource.lists += 1
                    self.lists.set(self.lists.value + 1)
                    self._notify()
        except StatusError as error:
            log.debug("list-and-watch-ended", extra={"why": error})
        finally:
            resource.ended(endpoint, self.behaviour.ends, self._random)
            self._notify()

    def _notify(self) -> None:
        self.changed.set(self.changed.value + 1)


def device_paths(response: pb.ContainerAllocateResponse) -> Sequence[str]:
    """The device nodes that the container would see."""
    return [device.container_path for device in response.devices]
