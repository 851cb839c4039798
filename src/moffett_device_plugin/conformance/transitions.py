"""Health: what changes has to be listed. With `--break` and `--mend` only."""

from __future__ import annotations

import asyncio
import time

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.messages import StatusError
from .outcome import FailedError, Outcome, SkippedError, passed, plural, reported
from .rig import Rig, ms


async def health_break(rig: Rig) -> Outcome:
    """API (ListAndWatch): whenever a device's state changes or it disappears, the new list
    is sent. The others' state stays as it was."""
    await _fresh(rig)
    before = set(rig.healthy())
    took = await _break(rig)
    gone = before - set(rig.devices())
    unhealthy = before - set(rig.healthy()) - gone
    if not rig.healthy() and len(before) > 1:
        return reported(f"all {len(before)} devices are affected, after {took:g} ms", took)
    how = [f"{len(unhealthy)} Unhealthy"] * bool(unhealthy) + [f"{len(gone)} not listed"] * bool(
        gone
    )
    return passed(f"{', '.join(how)} of {len(before)}, {took:g} ms after --break began", took)


async def health_seen_by_all(rig: Rig) -> Outcome:
    """The API does not say that each of several streams is told; a kubelet whose older
    stream has not ended yet misses what goes to that one."""
    await _fresh(rig)
    async with rig.channel() as channel:
        stream = channel.stream(api.LIST_AND_WATCH, b"")
        try:
            before = _healthy(await anext(stream))
            await _break(rig, strict=False)
            async with asyncio.timeout(rig.options.timeout):
                async for raw in stream:
                    if _healthy(raw) != before:
                        break
        except TimeoutError:
            return reported("a second stream was not told")
        except StatusError as error:
            return reported(f"a second stream ended: {error}")
        finally:
            await stream.aclose()
    try:
        await rig.until(lambda: set(rig.healthy()) != before, "such list on the first stream")
    except FailedError:
        return reported("of two streams only the newer one was told")
    return passed("two streams were told")


async def health_asked_for(rig: Rig) -> Outcome:
    """The API leaves open what Allocate says of a device that is listed as unhealthy; a
    kubelet asks when the list crossed the request."""
    await _broken(rig)
    unhealthy = [i for i, device in rig.devices().items() if device.health != api.HEALTHY]
    if not unhealthy:
        raise SkippedError("--break takes the device off the list")
    try:
        await rig.allocate(unhealthy[:1])
    except StatusError as error:
        return reported(f"refused: {error}"[:160])
    return reported("granted")


async def health_after_restart(rig: Rig) -> Outcome:
    """API (ListAndWatch): a new kubelet's first list says what is so now."""
    await _broken(rig)
    unhealthy = set(rig.healthy())
    rig.kubelet.kill()
    await rig.kubelet.start()
    outcome = await rig.comes_back(time.perf_counter(), "the new kubelet.sock")
    if set(rig.healthy()) != unhealthy:
        text = "the new kubelet's first list does not have the break"
        if outcome.level != "pass":
            return reported(f"{text}; the plugin {outcome.detail}")
        raise FailedError(text)
    return passed("the new kubelet's first list has the break")


async def health_mend(rig: Rig) -> Outcome:
    """API (ListAndWatch): recovery is a change of state as well, and the kubelet that is
    there now has to learn of it."""
    await _broken(rig)
    broken = len(rig.healthy())
    started = time.perf_counter()
    await rig.run(rig.options.mend_command)
    await rig.until(lambda: len(rig.healthy()) > broken, "recovery listed after --mend")
    await rig.until(lambda: len(rig.healthy()) >= rig.whole, "full recovery listed after --mend")
    rig.broken = False
    took = ms(started)
    return passed(f"{plural(rig.whole, 'device')} healthy {took:g} ms after --mend began", took)


CHECKS = (
    health_break,
    health_seen_by_all,
    health_asked_for,
    health_after_restart,
    health_mend,
)


async def _break(rig: Rig, *, strict: bool = True) -> float:
    """Milliseconds until the kubelet had a list with fewer healthy devices."""
    if not (rig.options.break_command and rig.options.mend_command):
        raise SkippedError("needs --break and --mend")
    before = rig.whole = len(rig.healthy())
    started = time.perf_counter()
    rig.broken = True
    await rig.run(rig.options.break_command)
    if strict:
        await rig.until(lambda: len(rig.healthy()) < before, "change listed after --break")
    return ms(started)


async def _broken(rig: Rig) -> None:
    await _fresh(rig)
    await _break(rig)


async def _fresh(rig: Rig) -> None:
    """A new plugin, with no streams from earlier checks, and all its devices well."""
    await _mend(rig)
    if rig.options.break_command:
        await rig.begin()
    await rig.ready()


async def _mend(rig: Rig) -> None:
    if rig.broken:
        await rig.run(rig.options.mend_command)
        rig.broken = False


def _healthy(raw: bytes) -> set[str]:
    listed = pb.ListAndWatchResponse.FromString(raw).devices
    return {device.ID for device in listed if device.health == api.HEALTHY}
