"""Others who reach the daemon's socket, and what they send."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import MAX_REQUEST, StatusError

from ..invariants import InvariantError
from ..world import World
from .registry import action

CALLS = (
    api.GET_OPTIONS,
    api.LIST_AND_WATCH,
    api.GET_PREFERRED_ALLOCATION,
    api.ALLOCATE,
    api.PRE_START_CONTAINER,
)


def _socket(world: World) -> Path:
    endpoint = world.kubelet.endpoint(world.shape.resource)
    world.need(endpoint is not None)
    assert endpoint is not None
    return endpoint


@action("garbage-on-the-socket")
async def garbage_on_the_socket(world: World) -> None:
    path = _socket(world)
    starts = (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(10):
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_unix_connection(str(path))
                writer.write(world.chance.choice(starts))
                writer.write(world.chance.randbytes(world.chance.randint(0, 20_000)))
                await writer.drain()
                if world.chance.random() < 0.5:
                    await reader.read(100)
                writer.transport.abort()


@action("malformed-requests")
async def malformed_requests(world: World) -> None:
    """Bytes that are no message, to every call."""
    path = _socket(world)
    for call in CALLS:
        with suppress(OSError, StatusError):
            async with await Channel.connect(path) as channel:
                garbage = world.chance.randbytes(world.chance.randint(1, 300))
                await channel.unary(call, garbage, 2.0)


@action("oversized-requests")
async def oversized_requests(world: World) -> None:
    path = _socket(world)
    request = pb.AllocateRequest()
    request.container_requests.add(devices_ids=["x" * 1000] * (MAX_REQUEST // 1000 + 10))
    for content in (request.SerializeToString(), bytes(4 * MAX_REQUEST)):
        with suppress(OSError, StatusError):
            async with await Channel.connect(path) as channel:
                await channel.unary(api.ALLOCATE, content, 2.0)
                raise InvariantError("refuses-invalid", "an oversized request was granted")


@action("unknown-devices")
async def unknown_devices(world: World) -> None:
    """Ids that the node never had, some of them huge in number; none is granted."""
    path = _socket(world)
    for ids in (["0000:ff:00.0"], ["../../dev/sda"], [os.urandom(4).hex() for _ in range(5000)]):
        request = pb.AllocateRequest(
            container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)]
        )
        with suppress(OSError, StatusError):
            async with await Channel.connect(path) as channel:
                await channel.unary(api.ALLOCATE, request.SerializeToString(), 2.0)
                raise InvariantError("refuses-invalid", f"{ids[0]} was granted")


@action("streams-cancelled")
async def streams_cancelled(world: World) -> None:
    """Many ListAndWatch calls, each given up somewhere."""
    path = _socket(world)

    async def one(pause: float) -> None:
        with suppress(OSError, StatusError, TimeoutError):
            async with await Channel.connect(path) as channel:
                async with asyncio.timeout(pause):
                    async for _ in channel.stream(api.LIST_AND_WATCH, b""):
                        pass

    await asyncio.gather(*(one(world.chance.uniform(0, 0.2)) for _ in range(20)))


@action("connections-that-say-nothing")
async def connections_that_say_nothing(world: World) -> None:
    path = _socket(world)
    silent: list[asyncio.StreamWriter] = []
    for _ in range(world.chance.randint(10, 150)):
        with suppress(OSError):
            silent.append((await asyncio.open_unix_connection(str(path)))[1])
    await asyncio.sleep(world.chance.uniform(0, 0.5))
    for writer in silent:
        writer.transport.abort()


@action("listener-that-never-reads")
async def listener_that_never_reads(world: World) -> None:
    """Asks for lists without end, and takes none of them."""
    path = _socket(world)
    with suppress(OSError, StatusError):
        channel = await Channel.connect(path)
        streams = [channel.stream(api.LIST_AND_WATCH, b"") for _ in range(30)]
        firsts = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.wait(firsts, timeout=0.5)
        channel._transport.pause_reading()
        for device in world.machine.devices:  # many lists: changes of health
            world.machine.set_aer(device, device.aer_fatal)
        await asyncio.sleep(world.chance.uniform(0, 0.5))
        channel.close()
        await asyncio.gather(*firsts, return_exceptions=True)
