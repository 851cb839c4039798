"""Health: what changes has to be listed. With `--inject` and `--heal` only."""

from __future__ import annotations

import asyncio
import time

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.grpc.messages import StatusError

from .outcome import FailedError, Outcome, SkippedError, passed, plural, reported
from .rig import Rig, ms


async def health_failure(rig: Rig) -> Outcome:
    """API (ListAndWatch): whenever a device's state changes or it disappears, the new list
    is sent. The others' state stays as it was."""
    await _fresh(rig)
    before = set(rig.healthy())
    took = await _inject(rig)
    gone = before - set(rig.devices())
    unhealthy = before - set(rig.healthy()) - gone
    if not rig.healthy() and len(before) > 1:
        return reported(f"all {len(before)} devices are affected, after {took:g} ms", took)
    how = [f"{len(unhealthy)} Unhealthy"] * bool(unhealthy) + [f"{len(gone)} not listed"] * bool(
        gone
    )
    return passed(f"{', '.join(how)} of {len(before)}, {took:g} ms after --inject began", took)


async def health_seen_by_all(rig: Rig) -> Outcome:
    """The API does not say that each of several streams gets the list; a kubelet whose
    older stream has not ended yet misses what goes to that one."""
    await _fresh(rig)
    async with rig.channel() as channel:
        stream = channel.stream(api.LIST_AND_WATCH, b"")
        try:
            before = _healthy(await anext(stream))
            await _inject(rig, strict=False)
            async with asyncio.timeout(rig.options.timeout):
                async for raw in stream:
                    if _healthy(raw) != before:
                        break
        except TimeoutError:
            return reported("a second stream got no new list")
        except StatusError as error:
            return reported(f"a second stream ended: {error}")
        finally:
            await stream.aclose()
    try:
        await rig.until(lambda: set(rig.healthy()) != before, "such list on the first stream")
    except FailedError:
        return reported("of two streams only the newer one got the list")
    return passed("both streams got the list")


async def health_asked_for(rig: Rig) -> Outcome:
    """The API leaves open what Allocate says of a device that is listed as unhealthy; a
    kubelet asks when the list crossed the request."""
    await _injected(rig)
    unhealthy = [i for i, device in rig.devices().items() if device.health != api.HEALTHY]
    if not unhealthy:
        raise SkippedError("--inject takes the device off the list")
    try:
        await rig.allocate(unhealthy[:1])
    except StatusError as error:
        return reported(f"refused: {error}"[:160])
    return reported("granted")


async def health_after_restart(rig: Rig) -> Outcome:
    """API (ListAndWatch): a new kubelet's first list has the present state."""
    await _injected(rig)
    unhealthy = set(rig.healthy())
    rig.kubelet.kill()
    await rig.kubelet.start()
    outcome = await rig.comes_back(time.perf_counter(), "the new kubelet.sock")
    if set(rig.healthy()) != unhealthy:
        text = "the new kubelet's first list does not have the fault"
        if outcome.level != "pass":
            return reported(f"{text}; the plugin {outcome.detail}")
        raise FailedError(text)
    return passed("the new kubelet's first list has the fault")


async def health_recovery(rig: Rig) -> Outcome:
    """API (ListAndWatch): recovery is a change of state as well, and the kubelet that is
    there now has to learn of it."""
    await _injected(rig)
    broken = len(rig.healthy())
    started = time.perf_counter()
    await rig.run(rig.options.heal_command)
    await rig.until(lambda: len(rig.healthy()) > broken, "recovery listed after --heal")
    await rig.until(
        lambda: len(rig.healthy()) >= rig.healthy_before, "full recovery listed after --heal"
    )
    rig.injected = False
    took = ms(started)
    return passed(
        f"{plural(rig.healthy_before, 'device')} healthy {took:g} ms after --heal began", took
    )


CHECKS = (
    health_failure,
    health_seen_by_all,
    health_asked_for,
    health_after_restart,
    health_recovery,
)


async def _inject(rig: Rig, *, strict: bool = True) -> float:
    """Milliseconds until the kubelet had a list with fewer healthy devices."""
    if not (rig.options.inject_command and rig.options.heal_command):
        raise SkippedError("needs --inject and --heal")
    before = rig.healthy_before = len(rig.healthy())
    started = time.perf_counter()
    rig.injected = True
    await rig.run(rig.options.inject_command)
    if strict:
        await rig.until(lambda: len(rig.healthy()) < before, "change listed after --inject")
    return ms(started)


async def _injected(rig: Rig) -> None:
    await _fresh(rig)
    await _inject(rig)


async def _fresh(rig: Rig) -> None:
    """A new plugin, with no streams from earlier checks, and all its devices healthy."""
    await _heal(rig)
    if rig.options.inject_command:
        await rig.begin()
    await rig.ready()


async def _heal(rig: Rig) -> None:
    if rig.injected:
        await rig.run(rig.options.heal_command)
        rig.injected = False


def _healthy(raw: bytes) -> set[str]:
    listed = pb.ListAndWatchResponse.FromString(raw).devices
    return {device.ID for device in listed if device.health == api.HEALTHY}
