"""ListAndWatch: what is listed, and how the stream behaves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import StatusError

from .outcome import ExitedError, FailedError, NotReadyError, Outcome, passed, plural, reported
from .rig import Rig, ms

MAX_ID = 63
_NUMA_NODES = Path("/sys/devices/system/node")


async def list_at_once(rig: Rig) -> Outcome:
    """API: ListAndWatch returns the list of devices; a kubelet has none until the first
    one comes, whatever changes or not."""
    await rig.ready()
    async with rig.channel() as channel:
        started = time.perf_counter()
        devices = (await first_list(rig, channel)).devices
        took = ms(started)
    healthy = sum(device.health == api.HEALTHY for device in devices)
    detail = f"{plural(len(devices), 'device')}, {healthy} healthy, in {took:g} ms"
    return passed(detail, took) if devices else reported("an empty list", took)


async def list_ids(rig: Rig) -> Outcome:
    """API (Device.ID): a unique id, of at most 63 characters."""
    devices = await _listed(rig)
    counts = Counter(device.ID for device in devices)
    if "" in counts:
        raise FailedError("an empty id")
    if twice := [name for name, count in counts.items() if count > 1]:
        raise FailedError(f"{twice[0]!r} is listed {counts[twice[0]]} times")
    longest = max(counts, key=len, default="")
    if len(longest) > MAX_ID:
        raise FailedError(f"{longest!r} has {len(longest)} characters")
    return passed(f"unique, the longest has {plural(len(longest), 'character')}")


async def list_health(rig: Rig) -> Outcome:
    """API (Device.health, constants): Healthy or Unhealthy. A kubelet takes anything but
    Healthy, in exactly that spelling, for unhealthy."""
    values = Counter(device.health for device in await _listed(rig))
    for value in values:
        if value not in (api.HEALTHY, api.UNHEALTHY):
            raise FailedError(f"health {value!r}")
    return passed(", ".join(f"{count} {value}" for value, count in values.items()) or "none")


async def list_topology(rig: Rig) -> Outcome:
    """API (TopologyInfo): the NUMA nodes that a device is near. A topology without nodes
    counts as none in 1.36."""
    devices = await _listed(rig)
    seen: set[int] = set()
    empty = with_topology = 0
    for device in devices:
        if not device.HasField("topology"):
            continue
        nodes = [node.ID for node in device.topology.nodes]
        if any(node < 0 for node in nodes):
            raise FailedError(f"{device.ID}: NUMA node {min(nodes)}")
        if len(set(nodes)) != len(nodes):
            raise FailedError(f"{device.ID}: a NUMA node is named twice: {nodes}")
        seen.update(nodes)
        empty += not nodes
        with_topology += bool(nodes)
    if empty:
        return reported(f"{plural(empty, 'device')} with a topology that names no node")
    if not with_topology:
        return passed("no device has a topology")
    unknown = sorted(node for node in seen if not (_NUMA_NODES / f"node{node}").exists())
    nodes_text = ", ".join(map(str, sorted(seen)))
    if unknown:
        return reported(f"NUMA nodes {nodes_text}; not on this machine: {unknown}")
    return passed(f"NUMA nodes {nodes_text} on {plural(with_topology, 'device')}")


async def list_stays_open(rig: Rig) -> Outcome:
    """Kubelets take the end of the stream for the end of the plugin: all its devices
    are unhealthy at once."""
    # A new plugin: one may register again when a stream of an earlier check ends. Not
    # `ready`: a stream that ends at once would never be seen to be open.
    await rig.begin()
    try:
        await rig.until(lambda: rig.kubelet.lists.value > 0, "device list")
    except (FailedError, ExitedError) as error:
        raise NotReadyError(str(error)) from error
    await rig.until_settled(rig.options.settle)
    if not rig.registered:
        raise FailedError("the plugin ended the kubelet's stream")
    return passed(f"open for {rig.options.settle:g} s and more")


async def two_streams(rig: Rig) -> Outcome:
    """The API does not say that a plugin serves two at a time; a kubelet that a plugin
    registers with again has two for a while."""
    await rig.ready()
    async with rig.channel() as one, rig.channel() as two:
        streams = [channel.stream(api.LIST_AND_WATCH, b"") for channel in (one, two)]
        try:
            first, second = [await _next(rig, stream) for stream in streams]
        except (FailedError, StatusError) as error:
            return reported(f"beside the kubelet's stream: {error}")
        finally:
            for stream in streams:
                await stream.aclose()
    if {d.ID for d in first.devices} != {d.ID for d in second.devices}:
        raise FailedError("two streams begin with different devices")
    await rig.still_serves("the end of two more streams")
    return passed("two more beside the kubelet's, with the same devices")


async def stream_cancelled(rig: Rig) -> Outcome:
    """gRPC: a caller may cancel. A kubelet that stops does, and its successor calls
    again."""
    await rig.ready()
    async with rig.channel() as channel:
        for _ in range(5):
            await first_list(rig, channel)
    await rig.still_serves("cancelled streams")
    return passed("5 cancelled on one connection, each call got its list")


CHECKS = (
    list_at_once,
    list_ids,
    list_health,
    list_topology,
    list_stays_open,
    two_streams,
    stream_cancelled,
)


async def first_list(rig: Rig, channel: Channel) -> pb.ListAndWatchResponse:
    """Calls ListAndWatch, and cancels it after the first answer."""
    stream = channel.stream(api.LIST_AND_WATCH, b"")
    try:
        return await _next(rig, stream)
    except StatusError as error:
        raise FailedError(f"ListAndWatch: {error}") from error
    finally:
        await stream.aclose()


async def _next(rig: Rig, stream: AsyncGenerator[bytes, None]) -> pb.ListAndWatchResponse:
    try:
        async with asyncio.timeout(rig.options.timeout):
            async for raw in stream:
                return pb.ListAndWatchResponse.FromString(raw)
    except TimeoutError:
        raise FailedError(f"no list in {rig.options.timeout:g} s") from None
    raise FailedError("the stream ended before the first list")


async def _listed(rig: Rig) -> list[pb.Device]:
    """The list as it came, repetitions and all."""
    await rig.ready()
    async with rig.channel() as channel:
        return list((await first_list(rig, channel)).devices)
