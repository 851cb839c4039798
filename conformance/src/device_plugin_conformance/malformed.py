"""What no kubelet sends, but a socket may bring. After each, the plugin must serve on.

Whoever reaches the socket can do this; a plugin that a stray byte ends takes the node's
devices with it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.grpc.messages import Code, StatusError

from .outcome import FailedError, Outcome, passed, reported
from .rig import Rig, ms

_UNARY = (api.GET_OPTIONS, api.GET_PREFERRED_ALLOCATION, api.ALLOCATE, api.PRE_START_CONTAINER)
_NOT_PROTOBUF = (b"\xff" * 16, b"\x0a\x7f", b"\x0a\x02\x0a\xff", b"\x0a\x04\x0a\x02\xc3\x28")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
_GARBAGE = {
    "noise": bytes(range(256)) * 64,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a preface": _PREFACE[:10],
    "a frame of 16 MiB": _PREFACE + _SETTINGS + b"\xff\xff\xff\0\0\0\0\0\x01",
    "DATA on stream 0": _PREFACE + _SETTINGS + b"\0\0\x01\0\0\0\0\0\0x",
    "undecodable headers": _PREFACE + _SETTINGS + b"\0\0\x04\x01\x05\0\0\0\x01\xff\xff\xff\xff",
    "endless CONTINUATION": _PREFACE
    + _SETTINGS
    + b"\0\0\x01\x01\0\0\0\0\x01\x82"
    + b"\0\0\x01\x09\0\0\0\0\x01\x84" * 2000,
    "a flood of PING": _PREFACE + _SETTINGS + b"\0\0\x08\x06\0\0\0\0\0pingpong" * 2000,
    "a flood of resets": _PREFACE + _SETTINGS + b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08" * 2000,
}


async def garbage_messages(rig: Rig) -> Outcome:
    """gRPC: a request that is no message of its kind is answered with an error."""
    await rig.ready()
    answered: set[str] = set()
    taken = []
    for method in _UNARY:
        for body in _NOT_PROTOBUF:
            try:
                await rig.raw_call(method, body)
                taken.append(method.rpartition("/")[2])
            except StatusError as error:
                answered.add(error.code.name)
    await rig.still_serves("a message that is no protobuf")
    detail = f"answered with {', '.join(sorted(answered)) or 'OK'}"
    # Not every one of these is wrong for every message: unknown fields are skipped.
    if len(taken) == len(_UNARY) * len(_NOT_PROTOBUF):
        return reported("every one is answered with OK")
    return passed(detail)


async def oversized_message(rig: Rig) -> Outcome:
    """gRPC: a server bounds what it takes (4 MiB by default), and refuses
    more."""
    await rig.ready()
    request = pb.AllocateRequest()
    request.container_requests.add(devices_ids=["x" * 1000] * 8000)
    try:
        await rig.raw_call(api.ALLOCATE, request.SerializeToString())
    except (StatusError, FailedError) as error:
        answer = str(error)[:100]
    else:
        raise FailedError("8 MB of unknown devices are granted")
    await rig.still_serves("a message of 8 MB")
    return passed(f"8 MB: {answer}")


async def unknown_method(rig: Rig) -> Outcome:
    """gRPC: a method that a server does not know is UNIMPLEMENTED. So kubelets find out
    what an older plugin cannot do."""
    await rig.ready()
    try:
        await rig.raw_call("/v1beta1.DevicePlugin/NoSuchCall", b"")
    except StatusError as error:
        if error.code is not Code.UNIMPLEMENTED:
            return reported(f"answers {error}")
        await rig.still_serves("an unknown method")
        return passed("UNIMPLEMENTED")
    raise FailedError("a call that does not exist is answered with OK")


async def http2_garbage(rig: Rig) -> Outcome:
    """RFC 9113 (5.4): a broken connection ends alone."""
    await rig.ready()
    for name, data in _GARBAGE.items():
        reader, writer = await asyncio.open_unix_connection(str(rig.endpoint()))
        writer.write(data)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.1):  # some are answered by closing, some by waiting
                while await reader.read(65_536):
                    pass
        writer.close()
        await rig.still_serves(name)
    return passed(f"{len(_GARBAGE)} kinds: {', '.join(_GARBAGE)}")


async def many_connections(rig: Rig) -> Outcome:
    """Whoever reaches the socket can open connections and say nothing; the kubelet's own
    calls have to be answered all the same, and afterwards nothing may be left."""
    await rig.ready()
    assert rig.process is not None  # noqa: S101  (it is ready)
    before = rig.process.descriptors()
    refused = 0
    async with AsyncExitStack() as stack:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_unix_connection(str(rig.endpoint()))
            except OSError:
                refused += 1
                continue
            stack.callback(writer.close)
        started = time.perf_counter()
        await rig.still_serves("200 silent connections")
        took = ms(started)
    left = await _descriptors_left(rig, before)
    tail = f"; {refused} were refused" if refused else ""
    if left > 20:
        return reported(f"{left} of 200 connections are still open after their end{tail}", took)
    return passed(f"a call beside 200 silent connections: {took:g} ms{tail}", took)


async def many_calls(rig: Rig) -> Outcome:
    """RFC 9113 (5.1.2): a server may bound the streams of one connection; it has to
    answer or refuse each, and go on."""
    await rig.ready()
    async with rig.channel() as channel:
        calls = (rig.raw_call(api.GET_OPTIONS, b"", channel) for _ in range(300))
        started = time.perf_counter()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        took = ms(started)
    refused = sum(isinstance(answer, BaseException) for answer in answers)
    await rig.still_serves("300 calls at once")
    detail = f"300 calls at once: {300 - refused} answered, {refused} refused, in {took:g} ms"
    return passed(detail, took)


CHECKS = (
    garbage_messages,
    oversized_message,
    unknown_method,
    http2_garbage,
    many_connections,
    many_calls,
)


async def _descriptors_left(rig: Rig, before: int | None) -> int:
    """How many more there are than before, once that no longer changes."""
    left = 0
    for _ in range(20):
        now = rig.process.descriptors() if rig.process else None
        left = 0 if now is None or before is None else max(0, now - before)
        if not left:
            break
        await asyncio.sleep(0.05)
    return left
