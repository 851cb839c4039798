"""The kubelet's side of pod-resources, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moffett_device_plugin.api import podresources_pb2 as pb
from moffett_device_plugin.grpc.server import Server, Unary
from moffett_device_plugin.podresources.client import METHODS

V1, V1ALPHA1 = METHODS
#: namespace/pod/container -> resource -> the unit ids of each entry of that resource.
Pods = Mapping[str, Mapping[str, Sequence[Sequence[str]]]]

#: namespace/pod/container -> claim, as namespace/name -> driver, pool, device and CDI names.
Claims = Mapping[str, Mapping[str, Sequence[tuple[str, str, str, Sequence[str]]]]]


@dataclass
class PodResources:
    """Answers with `pods` and the claims that they use, or fails with `failure`; `calls`
    are the methods called."""

    pods: Pods = field(default_factory=dict)
    claims: Claims = field(default_factory=dict)
    failure: Exception | None = None
    calls: list[str] = field(default_factory=list)

    def answer(self, method: str) -> Unary:
        def call(request: bytes) -> bytes:
            pb.ListPodResourcesRequest.FromString(request)
            self.calls.append(method)
            if self.failure is not None:
                raise self.failure
            return answer_of(self.pods, self.claims)

        return Unary(call)

    @asynccontextmanager
    async def serving(
        self, socket: Path, methods: Sequence[str] = METHODS
    ) -> AsyncIterator[PodResources]:
        async with asyncio.TaskGroup() as tasks:
            server = Server({method: self.answer(method) for method in methods}, tasks)
            loop = asyncio.get_running_loop()
            listener = await loop.create_unix_server(server.protocol, str(socket))
            try:
                yield self
            finally:
                listener.close()
                server.close()
                socket.unlink(missing_ok=True)  # Python 3.13 has done it


def answer_of(pods: Pods, claims: Claims | None = None) -> bytes:
    response = pb.ListPodResourcesResponse()
    for key, resources in pods.items():
        added = _container(response, key)
        for resource, entries in resources.items():
            for ids in entries:
                added.devices.add(resource_name=resource, device_ids=ids)
    for key, used in (claims or {}).items():
        container = _container(response, key)
        for claim, devices in used.items():
            namespace, name = claim.split("/")
            one = container.dynamic_resources.add(claim_namespace=namespace, claim_name=name)
            for driver, pool, device, cdi in devices:
                one.claim_resources.add(
                    driver_name=driver,
                    pool_name=pool,
                    device_name=device,
                    cdi_devices=[pb.CDIDevice(name=qualified) for qualified in cdi],
                )
    return response.SerializeToString()


def _container(response: pb.ListPodResourcesResponse, key: str) -> pb.ContainerResources:
    namespace, name, container = key.split("/")
    listed = next((p for p in response.pod_resources if p.name == name), None)
    if listed is None:
        listed = response.pod_resources.add(name=name, namespace=namespace)
    return listed.containers.add(name=container)
