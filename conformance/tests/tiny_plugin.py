"""A tiny device plugin with chosen defects: python tiny_plugin.py DIR DEFECT...

Without any it breaks no rule. The suite is tested with it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.deviceplugin.kubelet_directory import KubeletDirectory
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import Code, StatusError
from moffett_device_plugin.grpc.server import Server, Streaming, Unary

IDS = ("a", "b", "c", "d")


class Plugin:
    def __init__(self, directory: Path, defects: frozenset[str]) -> None:
        self.path = directory / "tiny.sock"
        self.kubelet = KubeletDirectory(directory)
        self.defects = defects
        self.given: set[str] = set()
        self.listener: asyncio.Server | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            server = Server(
                {
                    api.GET_OPTIONS: Unary(self.options),
                    api.LIST_AND_WATCH: Streaming(self.list_and_watch),
                    api.GET_PREFERRED_ALLOCATION: Unary(self.preferred),
                    api.ALLOCATE: Unary(self.allocate),
                    api.PRE_START_CONTAINER: Unary(lambda _: b""),
                },
                tasks,
            )
            tasks.create_task(self.kubelet.run())
            before, version = None, -1
            while True:
                listing, version = await self.kubelet.listing.after(version)
                if listing.kubelet is None or listing.kubelet == before:
                    continue
                if before is not None and "ignores-restart" in self.defects:
                    continue
                before = listing.kubelet
                if "serves-late" in self.defects:
                    await self.register()
                    await self.serve(server)
                else:
                    await self.serve(server)
                    await self.register()

    async def serve(self, server: Server) -> None:
        if self.listener is not None:
            self.listener.close()
        if "stale-socket" not in self.defects:
            self.path.unlink(missing_ok=True)
        own = socket.socket(socket.AF_UNIX)
        own.bind(str(self.path))
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_unix_server(server.protocol, sock=own)

    async def register(self) -> None:
        request = pb.RegisterRequest(
            version="v1alpha" if "version" in self.defects else api.VERSION,
            endpoint=str(self.path) if "endpoint" in self.defects else self.path.name,
            resource_name="tiny" if "resource-name" in self.defects else "example.com/tiny",
            options=pb.DevicePluginOptions(get_preferred_allocation_available=True),
        )
        for _ in range(100):  # its socket is there a moment before it listens
            try:
                async with await Channel.connect(self.path.parent / api.KUBELET_SOCKET) as channel:
                    await channel.unary(api.REGISTER, request.SerializeToString(), 5)
            except OSError:
                await asyncio.sleep(0.01)
            except StatusError:
                return
            else:
                return

    def options(self, body: bytes) -> bytes:
        if "dies-of-garbage" in self.defects and body:
            sys.exit(3)
        try:
            pb.Empty.FromString(body)
        except Exception as error:
            raise StatusError(Code.INVALID_ARGUMENT, str(error)) from error
        return pb.DevicePluginOptions(get_preferred_allocation_available=True).SerializeToString()

    async def list_and_watch(self, _: bytes) -> AsyncIterator[bytes]:
        response = pb.ListAndWatchResponse()
        for name in IDS + (("a",) if "same-id" in self.defects else ()):
            device = response.devices.add(ID=name, health=api.HEALTHY)
            if "topology" in self.defects:
                device.topology.nodes.add(ID=-1)
        if "health-word" in self.defects:
            response.devices.add(ID="e", health="healthy")
        yield response.SerializeToString()
        if "ends-stream" not in self.defects:
            await asyncio.Event().wait()

    def preferred(self, body: bytes) -> bytes:
        request = pb.PreferredAllocationRequest.FromString(body)
        response = pb.PreferredAllocationResponse()
        for container in request.container_requests:
            must_include, size = list(container.must_include_deviceIDs), container.allocation_size
            if "no-must" in self.defects:
                must_include = []
            if "any-device" in self.defects:
                container.available_deviceIDs[:] = IDS
            rest = sorted(set(container.available_deviceIDs) - set(must_include))
            chosen = [*must_include, *rest][: size - ("too-few" in self.defects and size > 1)]
            response.container_responses.add(deviceIDs=chosen)
        return response.SerializeToString()

    def allocate(self, body: bytes) -> bytes:
        try:
            request = pb.AllocateRequest.FromString(body)
        except Exception as error:
            raise StatusError(Code.INVALID_ARGUMENT, str(error)) from error
        response = pb.AllocateResponse()
        for container in request.container_requests:
            known = [name for name in container.devices_ids if name in IDS]
            if len(known) < len(container.devices_ids) and not (
                ("half" in self.defects and known) or ("unknown" in self.defects and not known)
            ):
                raise StatusError(Code.NOT_FOUND, "unknown device")
            if "never-again" in self.defects and self.given.intersection(known):
                raise StatusError(Code.FAILED_PRECONDITION, "in use")
            self.given.update(known)
            if "one-response" in self.defects and response.container_responses:
                continue
            path = "dev/null" if "relative-path" in self.defects else "/dev/null"
            answer = response.container_responses.add()
            answer.devices.add(host_path=path, container_path="/dev/tiny", permissions="rw")
        return response.SerializeToString()


async def main() -> None:
    plugin = Plugin(Path(sys.argv[1]), frozenset(sys.argv[2:]))
    task = asyncio.create_task(plugin.run())
    loop = asyncio.get_running_loop()
    ignores = "ignores-sigterm" in plugin.defects
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if ignores else task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        plugin.path.unlink(missing_ok=True)


if __name__ == "__main__":
    asyncio.run(main())
