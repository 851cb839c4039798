"""How it ends, and how it starts after a bad end."""

from __future__ import annotations

import signal
import time

from .outcome import ExitedError, FailedError, Outcome, ending, passed, reported
from .rig import Rig, ms

#: Seconds that a plugin has lived at least before it is killed.
_LIFE = 1.1


async def sigterm(rig: Rig) -> Outcome:
    """Kubernetes sends SIGTERM, and kills after the grace period, 30 s by default. The
    exit code, and what becomes of the socket, are left open."""
    await rig.ready()
    endpoint = rig.endpoint()
    code, took = await _terminated(rig)
    await rig.until_gone()
    left = "socket removed" if not endpoint.exists() else "socket left behind"
    detail = f"ended ({ending(code)}) after {took:g} ms, {left}"
    return passed(detail, took) if code == 0 else reported(detail, took)


async def sigterm_without_kubelet(rig: Rig) -> Outcome:
    """As `sigterm`, while it waits for a kubelet: a rolling update must not hang on a node
    whose kubelet is down."""
    await rig.begin(kubelet=False)
    try:
        await rig.until_settled(rig.options.settle * 3)
    except ExitedError as error:
        return reported(f"ends ({ending(error.code)}) without a kubelet anyway")
    code, took = await _terminated(rig)
    detail = f"ended ({ending(code)}) after {took:g} ms"
    return passed(detail, took) if code == 0 else reported(detail, took)


async def start_after_sigterm(rig: Rig) -> Outcome:
    """A rolling update: the next instance registers with the same kubelet."""
    await rig.ready()
    await _terminated(rig)
    await rig.until_gone()
    return await _next(rig)


async def start_after_sigkill(rig: Rig) -> Outcome:
    """A plugin that is killed (out of memory, say) leaves its socket behind; the next
    instance must not stumble over it."""
    await rig.ready()
    # Some name their socket by the second; no runtime restarts a container within one.
    await rig.until_settled(_LIFE - ms(rig.started_at) / 1000)
    await rig.stop()
    await rig.until_gone()
    return await _next(rig)


CHECKS = (sigterm, sigterm_without_kubelet, start_after_sigterm, start_after_sigkill)


async def _terminated(rig: Rig) -> tuple[int, float]:
    """Exit code, and milliseconds. Raises FailedError after the grace period."""
    assert rig.process is not None  # noqa: S101  (it runs)
    started = time.perf_counter()
    rig.process.signal(signal.SIGTERM)
    try:
        await rig.until_settled(rig.options.grace)
    except ExitedError as error:
        return error.code, ms(started)
    raise FailedError(f"still there {rig.options.grace:g} s after SIGTERM")


async def _next(rig: Rig) -> Outcome:
    await rig.start()
    return await rig.comes_back(rig.started_at, "its start")
