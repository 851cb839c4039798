"""The kubelet's restarts, and its faults.

A kubelet that starts deletes the sockets in its directory, and then makes a new
kubelet.sock: until the plugin registers with that, the node has no devices.
"""

from __future__ import annotations

import time

from moffett_device_plugin import api
from moffett_device_plugin.fake_kubelet.behaviour import CURRENT, Behaviour

from .outcome import (
    ExitedError,
    FailedError,
    NotReadyError,
    Outcome,
    SkippedError,
    ending,
    passed,
    reported,
)
from .rig import Rig, ms

_NEW_SOCKET = "the new kubelet.sock"
#: How often a restart is tried to get the old inode number again.
_TRIES = 5


async def kubelet_restart(rig: Rig) -> Outcome:
    """Kubernetes' documentation of device plugins: one is expected to detect kubelet
    restarts, and to register again with the new one, which has deleted its socket."""
    await rig.ready()
    devices = set(rig.devices())
    rig.kubelet.kill()
    started = time.perf_counter()
    await rig.kubelet.start()
    outcome = await rig.comes_back(started, _NEW_SOCKET)
    if set(rig.devices()) != devices:
        return reported(f"{outcome.detail}; with other device ids", outcome.measured_ms)
    return outcome


async def kubelet_restart_same_inode(rig: Rig) -> Outcome:
    """Observed (1.20): in 6 of 7 restarts the new kubelet.sock has the old one's inode
    number, and who compares only that never registers again."""
    await rig.ready()
    socket = rig.directory / api.KUBELET_SOCKET
    for _ in range(_TRIES):
        inode = socket.stat().st_ino
        rig.kubelet.kill()
        started = time.perf_counter()
        await rig.kubelet.start()
        same = socket.stat().st_ino == inode
        outcome = await rig.comes_back(started, _NEW_SOCKET)
        if same:
            return outcome
    raise SkippedError(f"the file system gave other inode numbers, {_TRIES} times")


async def kubelet_down_for_a_while(rig: Rig) -> Outcome:
    """Observed (1.20): a restart takes 5 to 7 s, in which the dead sockets lie there; who
    gives up in between is lost."""
    await rig.ready()
    rig.kubelet.kill()
    ended = ""
    try:
        await rig.until_settled(rig.options.settle * 5)
    except ExitedError as error:
        # Its DaemonSet would start it again and again until there is a kubelet.
        ended = f"ends ({ending(error.code)}) meanwhile and counts on being restarted"
    started = time.perf_counter()
    await rig.kubelet.start()
    if ended:
        await rig.start()
    outcome = await rig.comes_back(started, _NEW_SOCKET)
    return reported(f"{ended}; {outcome.detail}", outcome.measured_ms) if ended else outcome


async def kubelet_socket_replaced(rig: Rig) -> Outcome:
    """No kubelet does this: a new kubelet.sock, and the plugin's socket left alone. A
    plugin that watches only its own socket may miss it."""
    await rig.ready()
    rig.kubelet.kill()
    started = time.perf_counter()
    await rig.kubelet.start(wipe=False)
    return await _reported_at_least(rig, started, _NEW_SOCKET)


async def own_socket_removed(rig: Rig) -> Outcome:
    """Kubernetes' documentation of device plugins: one can watch for its socket's end, and
    register again. It does not have to."""
    await rig.ready()
    await rig.until_quiet()
    before = len(rig.kubelet.registrations)
    path = rig.endpoint()
    started = time.perf_counter()
    path.unlink()
    made = None
    try:
        while len(rig.kubelet.registrations) == before:
            if made is None and path.exists():
                made = ms(started)
            waited = ms(started) / 1000
            if waited > (rig.options.timeout if made is None else made / 1000 + 0.5):
                break
            await rig.until_settled(0.005)
    except ExitedError as error:
        return reported(f"ends ({ending(error.code)}) and counts on being restarted")
    if len(rig.kubelet.registrations) > before:
        took = ms(started, rig.kubelet.registered_at[before])
        return passed(f"registered again {took:g} ms after its socket's end", took)
    if made is not None:
        text = f"made its socket again after {made:g} ms; the kubelet's connection held"
        return passed(text, made)
    text = f"nothing in {rig.options.timeout:g} s; it serves the connections that there are"
    return reported(text)


async def stream_cut(rig: Rig) -> Outcome:
    """No kubelet that lives closes the connection; the API has no rule for it. Who
    registers again then comes back also where no socket changed."""
    await rig.ready()
    await rig.until_quiet()
    started = time.perf_counter()
    rig.kubelet.disconnect(rig.resource)
    await rig.until(lambda: not rig.registered, "end of the stream")
    return await _reported_at_least(rig, started, "the end of its stream")


async def kubelet_absent(rig: Rig) -> Outcome:
    """A DaemonSet's pod may start before the kubelet's socket is there, and after a
    reboot often does; Kubernetes restarts a plugin that ends."""
    await rig.begin(kubelet=False)
    ended = ""
    try:
        await rig.until_settled(rig.options.settle * 3)
    except ExitedError as error:
        ended = f"ends ({ending(error.code)}) without a kubelet; restarted, it "
        await rig.stop()
    started = time.perf_counter()
    await rig.kubelet.start()
    if ended:
        await rig.start()
    outcome = await rig.comes_back(started, "kubelet.sock")
    detail = ended + outcome.detail
    return reported(detail, outcome.measured_ms) if ended else outcome


async def registration_refused(rig: Rig) -> Outcome:
    """API (Registration): a plugin is expected to terminate when its registration fails.
    To try again is as good; to stay and never register is not."""
    return await _through(rig, Behaviour(register="refuse"), "a refusal")


async def registration_hangs(rig: Rig) -> Outcome:
    """A kubelet that is stuck answers nothing. When it is restarted, the plugin has to
    register with the new one."""
    return await _through(rig, Behaviour(register="hang"), "a Register without an answer")


async def kubelet_stuck_in_register(rig: Rig) -> Outcome:
    """A process that cannot end keeps its connections, and no supervisor starts a second
    kubelet beside it; who waits for an answer without a limit waits for good then."""
    await rig.begin(Behaviour(register="hang"))
    await rig.until(lambda: bool(rig.kubelet.registrations), "Register")
    rig.kubelet.stop_accepting()
    rig.kubelet.behaviour = CURRENT
    started = time.perf_counter()
    await rig.kubelet.start()
    return await _reported_at_least(rig, started, _NEW_SOCKET)


async def kubelet_dies_in_register(rig: Rig) -> Outcome:
    """A kubelet may be killed at any moment, here while it is registered with."""
    return await _through(rig, Behaviour(register="die"), "a kubelet that died in Register")


async def kubelet_dies_before_dialling(rig: Rig) -> Outcome:
    """Kubelet 1.20 answers Register before it dials; when it is killed in between, the
    plugin has registered and is not known."""
    return await _through(rig, Behaviour(dial="never"), "a kubelet that died before it dialled")


async def never_dialled(rig: Rig) -> Outcome:
    """Observed (1.20): a kubelet that cannot dial back only logs that. The API does not
    ask the plugin to notice."""
    await rig.begin(Behaviour(dial="never"))
    await rig.until(lambda: bool(rig.kubelet.registrations), "Register")
    try:
        await rig.until(lambda: len(rig.kubelet.registrations) > 1, "second registration")
    except FailedError as error:
        return reported(str(error))
    except ExitedError as error:
        return reported(f"ends ({ending(error.code)}) and counts on being restarted")
    first, second = rig.kubelet.registered_at[-2:]
    return passed(f"registered again after {second - first:.1f} s", ms(first, second))


CHECKS = (
    kubelet_restart,
    kubelet_restart_same_inode,
    kubelet_down_for_a_while,
    kubelet_socket_replaced,
    own_socket_removed,
    stream_cut,
    kubelet_absent,
    registration_refused,
    registration_hangs,
    kubelet_stuck_in_register,
    kubelet_dies_in_register,
    kubelet_dies_before_dialling,
    never_dialled,
)


async def _through(rig: Rig, behaviour: Behaviour, what: str) -> Outcome:
    """A plugin that starts with a bad kubelet, which a good one then follows."""
    await rig.begin(behaviour)
    ended = ""
    try:
        await rig.until(lambda: bool(rig.kubelet.registrations), "Register")
        await rig.until_settled(rig.options.settle)
    except ExitedError as error:
        ended = f"ends ({ending(error.code)}) after {what}; restarted, it "
    rig.kubelet.kill()
    rig.kubelet.behaviour = CURRENT
    started = time.perf_counter()
    await rig.kubelet.start()
    if ended:
        await rig.stop()
        await rig.start()
    outcome = await rig.comes_back(started, f"{what}, from {_NEW_SOCKET}")
    return reported(ended + outcome.detail, outcome.measured_ms) if ended else outcome


async def _reported_at_least(rig: Rig, started: float, after: str) -> Outcome:
    """For what no rule asks for: it passes, or is reported."""
    try:
        return await rig.comes_back(started, after)
    except (FailedError, NotReadyError) as error:
        return reported(str(error))
