"""Allocate and PreStartContainer."""

from __future__ import annotations

import asyncio
import time

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.grpc.messages import StatusError

from .grants import missing_paths, summary, wrong_grant
from .outcome import FailedError, Outcome, SkippedError, passed, plural, reported
from .rig import Rig, ms


async def allocate_one(rig: Rig) -> Outcome:
    """API (AllocateResponse): a response for the container, with what it needs. Kubelets
    fail the pod for good when there is an error or no response."""
    ids = await _healthy(rig)
    started = time.perf_counter()
    response = await _granted(rig, [ids[0]])
    took = ms(started)
    if not (what := summary(response)):
        return reported("a response that gives the container nothing", took)
    return passed(f"{what}, in {took:g} ms", took)


async def allocate_each(rig: Rig) -> Outcome:
    """API (ListAndWatch): what is listed as healthy can be allocated. There is no call
    that gives a device back, so each is asked for twice, as by one pod after another."""
    ids = await _healthy(rig)
    for device in ids:
        await _granted(rig, [device])
    for device in ids:
        await _granted(rig, [device])
    return passed(f"each of {plural(len(ids), 'device')}, twice")


async def allocate_all(rig: Rig) -> Outcome:
    """A kubelet asks for as many as a container wants, in any order. The API leaves it to
    the plugin to refuse; the pod fails for good then."""
    ids = await _healthy(rig)
    try:
        (response,) = (await rig.allocate(rig.random.sample(ids, len(ids)))).container_responses
    except StatusError as error:
        return reported(f"refuses {plural(len(ids), 'device')} for one container: {error}")
    return passed(f"{plural(len(ids), 'device')} in one container: {summary(response)}")


async def allocate_containers(rig: Rig) -> Outcome:
    """API (AllocateResponse): a response for each container request, in order."""
    ids = await _healthy(rig, 2)
    alone = [_paths(await _granted(rig, [device])) for device in ids[:2]]
    try:
        responses = (await rig.allocate(ids[:1], ids[1:2])).container_responses
    except StatusError as error:
        raise FailedError(f"2 containers in one request: {error}") from error
    if len(responses) != 2:
        raise FailedError(f"2 containers in one request, {plural(len(responses), 'response')}")
    together = [_paths(response) for response in responses]
    if together == alone[::-1] != alone:
        raise FailedError("the responses are in another order than the requests")
    return passed("a response for each of 2 containers, in order")


async def allocate_contents(rig: Rig) -> Outcome:
    """API (DeviceSpec, Mount, CDIDevice, envs): absolute paths, permissions of r, w and m,
    qualified CDI names. Runtimes refuse to make a container of anything else."""
    ids = await _healthy(rig)
    for device in ids:
        if (wrong := wrong_grant(await _granted(rig, [device]))) is not None:
            raise FailedError(f"{device}: {wrong}")
    return passed(f"legal for each of {plural(len(ids), 'device')}")


async def allocate_paths_exist(rig: Rig) -> Outcome:
    """Kubelets retry a container whose host paths are missing. Here they may well be:
    the plugin may see another root, or simulated hardware."""
    ids = await _healthy(rig)
    missing = [path for device in ids for path in missing_paths(await _granted(rig, [device]))]
    if missing:
        return reported(f"{plural(len(missing), 'host path')} not here, such as {missing[0]}")
    return passed("all host paths exist here")


async def allocate_same_twice(rig: Rig) -> Outcome:
    """Kubelets may ask again for a container whose answer they lost; the API does not say
    that the answer is the same."""
    ids = await _healthy(rig)
    one, two = [await _granted(rig, ids[:1]) for _ in range(2)]
    if one != two:
        return reported("two answers for the same device differ")
    return passed("the same answer for the same device")


async def allocate_unknown(rig: Rig) -> Outcome:
    """API (AllocateResponse, failure handling): what cannot be allocated fails the
    request."""
    await rig.ready()
    try:
        response = await rig.allocate(["no-such-device"])
    except StatusError as error:
        return passed(str(error)[:120])
    raise FailedError(f"a device that was never listed is granted: {_whole(response)}")


async def allocate_half(rig: Rig) -> Outcome:
    """API (AllocateResponse, failure handling): when the allocation on dev1 succeeds and
    on dev2 fails, the request fails: no half answers."""
    ids = await _healthy(rig)
    for containers in (
        [[ids[0], "no-such-device"]],
        [["no-such-device", ids[0]]],
        [[ids[0]], ["no-such-device"]],
    ):
        try:
            response = await rig.allocate(*containers)
        except StatusError:
            continue
        raise FailedError(f"a known and an unknown device are granted: {_whole(response)}")
    return passed("a known and an unknown device fail together")


async def allocate_empty(rig: Rig) -> Outcome:
    """No kubelet asks for nothing, and the API leaves the answer open; there has to be
    one."""
    await rig.ready()
    found = []
    asked: dict[str, list[list[str]]] = {"no container": [], "a container without devices": [[]]}
    for name, containers in asked.items():
        try:
            response = await rig.allocate(*containers)
            found.append(f"{name}: {plural(len(response.container_responses), 'response')}")
        except StatusError as error:
            found.append(f"{name}: {error.code.name}")
    await rig.still_serves("an empty request")
    return reported("; ".join(found))


async def allocate_at_once(rig: Rig) -> Outcome:
    """gRPC: calls may overlap. Kubelets admit one pod at a time; init containers, several
    resources and re-admission after a restart are no promise."""
    ids = await _healthy(rig)
    started = time.perf_counter()
    async with rig.channel() as channel:
        calls = (rig.allocate([ids[n % len(ids)]], channel=channel) for n in range(16))
        answers = await asyncio.gather(*calls, return_exceptions=True)
    took = ms(started)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if failed:
        raise FailedError(f"{len(failed)} of 16 overlapping calls failed: {failed[0]}")
    return passed(f"16 overlapping calls in {took:g} ms", took)


async def pre_start(rig: Rig) -> Outcome:
    """API (PreStartContainer): called before each container start where the options say
    so. Where they do not, what it answers is open."""
    ids = await _healthy(rig)
    required = rig.kubelet.options(rig.resource).pre_start_required
    await _granted(rig, ids[:1])
    request = pb.PreStartContainerRequest(devices_ids=ids[:1])
    started = time.perf_counter()
    try:
        await rig.call(api.PRE_START_CONTAINER, request, pb.PreStartContainerResponse)
    except StatusError as error:
        if required:
            raise FailedError(f"it is required, and answers {error}") from error
        return reported(f"not required; answers {error.code.name}")
    took = ms(started)
    if required:
        return passed(f"answered in {took:g} ms", took)
    return reported("not required; answers OK", took)


CHECKS = (
    allocate_one,
    allocate_each,
    allocate_all,
    allocate_containers,
    allocate_contents,
    allocate_paths_exist,
    allocate_same_twice,
    allocate_unknown,
    allocate_half,
    allocate_empty,
    allocate_at_once,
    pre_start,
)


async def _healthy(rig: Rig, least: int = 1) -> list[str]:
    await rig.ready()
    ids = rig.healthy()
    if len(ids) < least:
        raise SkippedError(f"{plural(len(ids), 'healthy device')}, {least} are needed")
    return ids


async def _granted(rig: Rig, ids: list[str]) -> pb.ContainerAllocateResponse:
    try:
        responses = (await rig.allocate(ids)).container_responses
    except StatusError as error:
        raise FailedError(f"Allocate of {', '.join(ids)}: {error}") from error
    if len(responses) != 1:
        raise FailedError(f"1 container asked, {plural(len(responses), 'response')}")
    return responses[0]


def _paths(response: pb.ContainerAllocateResponse) -> set[str]:
    return {device.host_path for device in response.devices}


def _whole(response: pb.AllocateResponse) -> str:
    return ", ".join(summary(one) or "nothing" for one in response.container_responses) or "nothing"
