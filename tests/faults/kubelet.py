"""A kubelet that is killed at a chosen point of its exchange with a plugin, and reports the
pod resources while it runs."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from moffett_device_plugin.api import KUBELET_CHECKPOINT
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.fake_kubelet.behaviour import CURRENT, DEFAULT, UNTIL_1_36, Behaviour
from moffett_device_plugin.fake_kubelet.kubelet import FakeKubelet, Pod
from moffett_device_plugin.grpc.messages import Code, StatusError
from moffett_device_plugin.grpc.server import Server
from moffett_device_plugin.podresources.client import METHODS
from tests.support.podresources import PodResources

#: Where it can be killed, in the order of an exchange.
POINTS = (
    "register-arrives",  # before it answers
    "register-answered",  # the answer is on its way, it has not connected
    "before-dial",
    "dialled",  # connected, nothing called
    "list-asked",  # ListAndWatch called, no list yet
    "list-received",  # the first list is there
    "preferred-asked",  # GetPreferredAllocation called
    "allocate-asked",  # Allocate called
)
BEHAVIOURS: tuple[Behaviour, ...] = (DEFAULT, UNTIL_1_36, CURRENT)


class CrashingKubelet(FakeKubelet):
    """`crash_at` is one of POINTS, or empty; `crashed` is set when it was killed there."""

    def __init__(self, directory: Path, pod_socket: Path, tasks: asyncio.TaskGroup) -> None:
        super().__init__(directory, tasks)
        self.behaviours = BEHAVIOURS
        self.crash_at = ""
        self.crashed = asyncio.Event()
        self.pod_resources = PodResources()
        self._pod_socket = pod_socket
        self._pod_server: Server | None = None
        self._pod_listener: asyncio.Server | None = None
        self._loop = asyncio.get_running_loop()
        self.lists.listen(lambda: self._reached("list-received", later=True))

    async def start(self, *, wipe: bool = True) -> None:
        self._pod_socket.unlink(missing_ok=True)
        server = Server({m: self.pod_resources.answer(m) for m in METHODS}, self._tasks)
        self._pod_listener = await self._loop.create_unix_server(
            server.protocol, str(self._pod_socket)
        )
        self._pod_server = server
        await super().start(wipe=wipe)

    def kill(self) -> None:
        super().kill()
        if self._pod_listener is not None and self._pod_server is not None:
            self._pod_listener.close()
            self._pod_server.close()
            self._pod_listener = self._pod_server = None

    def choose_behaviour(self, chance: random.Random) -> None:
        self.behaviour = chance.choice(self.behaviours)

    def publish_pods(self) -> None:
        """Updates what the pod-resources socket and the checkpoint report."""
        pods = self.pods.values()
        self.pod_resources.pods = {f"ml/{p.name}/main": {p.resource: [p.device_ids]} for p in pods}
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        """As a kubelet from 1.20 on does before a pod's containers start."""
        entries = [
            {
                "PodUID": pod.name,
                "ContainerName": "main",
                "ResourceName": pod.resource,
                "DeviceIDs": {"-1": list(pod.device_ids)},
            }
            for pod in self.pods.values()
        ]
        text = json.dumps({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": {}}})
        with suppress(OSError):  # the disk may be full
            (self.directory / KUBELET_CHECKPOINT).write_text(text)

    # -- killed ---------------------------------------------------------------------------

    def _reached(self, point: str, *, later: bool = False) -> bool:
        if self.crash_at != point:
            return False
        self.crash_at = ""
        if later:
            self._loop.call_soon(self._crash)
        else:
            self._crash()
        return True

    def _crash(self) -> None:
        self.kill()
        self.crashed.set()

    async def _register(self, raw: bytes) -> bytes:
        if self._reached("register-arrives"):
            raise StatusError(Code.UNAVAILABLE, "the kubelet was killed")
        answer = await super()._register(raw)
        self._reached("register-answered", later=True)
        return answer

    async def _connect(self, request: pb.RegisterRequest) -> Any:
        if self._reached("before-dial"):
            raise OSError("the kubelet was killed")
        endpoint = await super()._connect(request)
        if self._reached("dialled"):
            endpoint.close()
            raise OSError("the kubelet was killed")
        return endpoint

    async def _listen(self, resource: Any, endpoint: Any) -> None:
        self._reached("list-asked", later=True)
        await super()._listen(resource, endpoint)

    async def admit(self, name: str, resource: str, count: int) -> Pod:
        if self.crash_at in ("preferred-asked", "allocate-asked"):
            # Two iterations of the loop for each call: it is sent then, and not answered.
            turns = 2 if self.crash_at == "preferred-asked" else 4
            self._tasks.create_task(self._crash_after(turns))
        return await super().admit(name, resource, count)

    async def _crash_after(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        self._reached(self.crash_at)


async def until_crashed(kubelet: CrashingKubelet, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await kubelet.crashed.wait()
            return True
    return False
