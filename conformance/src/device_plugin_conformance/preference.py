"""GetPreferredAllocation."""

from __future__ import annotations

import time
from collections.abc import Sequence

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.grpc.messages import StatusError

from .outcome import FailedError, Outcome, SkippedError, passed, plural, reported
from .rig import Rig, ms


async def preferred_size(rig: Rig) -> Outcome:
    """API (ContainerPreferredAllocationRequest): `allocation_size` of the available
    devices. An empty answer is taken for no preference by kubelets, and reported."""
    ids = await _available(rig)
    slowest, empty = 0.0, 0
    for size in _sizes(len(ids)):
        started = time.perf_counter()
        chosen = await prefer(rig, ids, (), size)
        slowest = max(slowest, ms(started))
        if not chosen:
            empty += 1
            continue
        check_choice(chosen, ids, (), size)
    sizes = ", ".join(map(str, _sizes(len(ids))))
    if empty:
        return reported(f"no preference for {empty} of the sizes {sizes} of {len(ids)}", slowest)
    return passed(f"{sizes} of {len(ids)}; the slowest took {slowest:g} ms", slowest)


async def preferred_must_include(rig: Rig) -> Outcome:
    """API (ContainerPreferredAllocationRequest): `must_include_deviceIDs` are in the
    preferred allocation; kubelets name those that are allocated already."""
    ids = await _available(rig, 2)
    tried = 0
    for must_include in ([ids[0]], [ids[-1]], ids[:: max(1, len(ids) // 2)][:2]):
        for size in {len(must_include), min(len(must_include) + 1, len(ids)), len(ids)}:
            chosen = await prefer(rig, ids, must_include, size)
            if chosen:
                tried += 1
                check_choice(chosen, ids, must_include, size)
    if not tried:
        return reported("no preference for any of the requests")
    return passed(f"kept in {plural(tried, 'answer')}")


async def preferred_part(rig: Rig) -> Outcome:
    """API (ContainerPreferredAllocationRequest): only from `available_deviceIDs`, be the
    other devices healthy or not."""
    ids = await _available(rig, 2)
    part = rig.random.sample(ids, len(ids) // 2)
    for size in sorted({1, len(part)}):
        if chosen := await prefer(rig, part, (), size):
            check_choice(chosen, part, (), size)
    return passed(f"from {len(part)} of {len(ids)}, nothing else")


async def preferred_containers(rig: Rig) -> Outcome:
    """API (PreferredAllocationResponse): a response for each container request, in order."""
    ids = await _available(rig, 2)
    request = pb.PreferredAllocationRequest()
    for size in (1, 2):
        request.container_requests.add(available_deviceIDs=ids, allocation_size=size)
    response = await _ask(rig, request)
    sizes = [len(container.deviceIDs) for container in response.container_responses]
    if len(sizes) != 2:
        raise FailedError(f"2 containers asked, {plural(len(sizes), 'response')}")
    if sizes != [1, 2] and any(sizes):
        raise FailedError(f"1 and 2 devices asked for, {sizes[0]} and {sizes[1]} preferred")
    return passed("a response for each of 2 containers, in order")


async def preferred_impossible(rig: Rig) -> Outcome:
    """The API leaves open what becomes of a request that cannot be met; it has to be
    answered, for kubelets wait without a limit."""
    ids = await _available(rig)
    cases: dict[str, tuple[Sequence[str], Sequence[str], int]] = {
        "more than available": (ids, (), len(ids) + 1),
        "none": (ids, (), 0),
        "a negative number": (ids, (), -1),
        "from nothing": ((), (), 1),
        "unknown ids": (["no-such-device", "nor-this-one"], (), 1),
        "must not available": (ids[:1], ["no-such-device"], 1),
        "more must than wanted": (ids, ids, 1) if len(ids) > 1 else (ids, (), 2),
        "an id twice": ([*ids, *ids], (), 1),
    }
    found: dict[str, list[str]] = {}
    for name, (available, must_include, size) in cases.items():
        try:
            chosen = await prefer(rig, available, must_include, size, refusals=True)
            answer = plural(len(chosen), "device") if chosen else "no preference"
        except StatusError as error:
            answer = error.code.name
        found.setdefault(answer, []).append(name)
    await rig.still_serves("an impossible request")
    return reported("; ".join(f"{answer}: {', '.join(names)}" for answer, names in found.items()))


async def preferred_not_advertised(rig: Rig) -> Outcome:
    """Kubelets call it only where the options say so; the API leaves open what others
    get."""
    await rig.ready()
    if _advertised(rig):
        raise SkippedError("it is advertised")
    request = pb.PreferredAllocationRequest()
    request.container_requests.add(available_deviceIDs=rig.healthy(), allocation_size=1)
    try:
        await rig.call(api.GET_PREFERRED_ALLOCATION, request, pb.PreferredAllocationResponse)
    except StatusError as error:
        return reported(f"answers {error.code.name}")
    return reported("answers OK")


CHECKS = (
    preferred_size,
    preferred_must_include,
    preferred_part,
    preferred_containers,
    preferred_impossible,
    preferred_not_advertised,
)


async def prefer(
    rig: Rig,
    available: Sequence[str],
    must_include: Sequence[str],
    size: int,
    *,
    refusals: bool = False,
) -> list[str]:
    """Asks in random order, as kubelets do. Empty for no preference. A StatusError is a
    FailedError unless `refusals` are awaited."""
    request = pb.PreferredAllocationRequest()
    request.container_requests.add(
        available_deviceIDs=rig.random.sample(list(available), len(available)),
        must_include_deviceIDs=must_include,
        allocation_size=size,
    )
    response = await _ask(rig, request, refusals=refusals)
    found = response.container_responses
    return list(found[0].deviceIDs) if found else []


def check_choice(
    chosen: Sequence[str], available: Sequence[str], must_include: Sequence[str], size: int
) -> None:
    """Raises FailedError unless it is `size` different ones of those, with these."""
    what = f"of {size} from {len(available)}"
    if len(set(chosen)) != len(chosen):
        raise FailedError(f"{what}: a device is preferred twice: {', '.join(chosen)}")
    if foreign := set(chosen) - set(available):
        raise FailedError(f"{what}: {min(foreign)} was not available")
    if missing := set(must_include) - set(chosen):
        raise FailedError(f"{what}: {min(missing)} had to be included")
    if len(chosen) != size:
        raise FailedError(f"{what}: {plural(len(chosen), 'device')}")


async def _ask(
    rig: Rig, request: pb.PreferredAllocationRequest, *, refusals: bool = False
) -> pb.PreferredAllocationResponse:
    try:
        return await rig.call(api.GET_PREFERRED_ALLOCATION, request, pb.PreferredAllocationResponse)
    except StatusError as error:
        if refusals:
            raise
        raise FailedError(f"GetPreferredAllocation: {error}") from error


async def _available(rig: Rig, least: int = 1) -> list[str]:
    await rig.ready()
    if not _advertised(rig):
        raise SkippedError("it is not advertised")
    ids = rig.healthy()
    if len(ids) < least:
        raise SkippedError(f"{plural(len(ids), 'healthy device')}, {least} are needed")
    return ids


def _advertised(rig: Rig) -> bool:
    return rig.kubelet.options(rig.resource).get_preferred_allocation_available


def _sizes(count: int) -> list[int]:
    return sorted({1, 2, count // 2, count - 1, count} & set(range(1, count + 1)))
