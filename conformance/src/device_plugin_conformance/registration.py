"""How it registers, and what with."""

from __future__ import annotations

import asyncio
import re
import stat

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.fake_kubelet.behaviour import Behaviour

from .outcome import ExitedError, FailedError, NotReadyError, Outcome, passed, reported
from .rig import Rig, ms

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


async def registers(rig: Rig) -> Outcome:
    """API: a plugin calls Register on kubelet.sock and then serves ListAndWatch."""
    await rig.begin()
    try:
        await rig.until(lambda: bool(rig.kubelet.registrations), "Register")
        took = ms(rig.started_at, rig.kubelet.registered_at[0])
        await rig.until(lambda: rig.registered, "device list after the registration")
    except ExitedError as error:
        raise FailedError(f"{error}; its output: {last_lines(rig)}") from error
    listed = ms(rig.started_at)
    others = {r.resource_name for r in rig.kubelet.registrations} - {rig.resource}
    also = f"; also registers {', '.join(sorted(others))}" if others else ""
    detail = f"{rig.resource} registered {took:g} ms and listed {listed:g} ms after its start"
    return passed(detail + also, took)


async def register_version(rig: Rig) -> Outcome:
    """API: RegisterRequest.version is the API's, v1beta1; a kubelet refuses any other."""
    version = (await _request(rig)).version
    if version != api.VERSION:
        raise FailedError(f"version {version!r}")
    return passed(version)


async def register_resource_name(rig: Rig) -> Outcome:
    """Kubelets refuse what is no extended resource: a DNS domain outside kubernetes.io,
    a slash, and a qualified name of up to 63 characters (IsExtendedResourceName)."""
    name = (await _request(rig)).resource_name
    if (wrong := wrong_resource_name(name)) is not None:
        raise FailedError(f"{name!r}: {wrong}")
    return passed(name)


async def register_endpoint(rig: Rig) -> Outcome:
    """API: RegisterRequest.endpoint is the name of a socket, which the kubelet joins to
    its own directory."""
    endpoint = (await _request(rig)).endpoint
    if not endpoint or "/" in endpoint or endpoint in (".", "..", api.KUBELET_SOCKET):
        raise FailedError(f"{endpoint!r} is not the bare name of a socket of its own")
    try:
        status = (rig.directory / endpoint).lstat()
    except OSError as error:
        raise FailedError(f"{endpoint}: {error.strerror}") from error
    if not stat.S_ISSOCK(status.st_mode):
        raise FailedError(f"{endpoint} is not a socket")
    mode = stat.S_IMODE(status.st_mode)
    return passed(f"{endpoint}, a socket in the directory, mode {mode:04o}")


async def serves_before_registering(rig: Rig) -> Outcome:
    """Kubelets of today (seen in 1.35 and 1.36) dial the endpoint and call
    GetDevicePluginOptions before they answer Register: who serves only after the answer
    is refused."""
    await rig.begin()
    try:
        await rig.until(lambda: rig.registered or bool(rig.kubelet.dial_failures), "Register")
    finally:
        failures = list(rig.kubelet.dial_failures)
        rig.kubelet.dial_failures.clear()
    if failures:
        raise FailedError(f"the kubelet could not dial during Register: {failures[0]}")
    return passed("the kubelet's dial during Register was answered")


async def options_agree(rig: Rig) -> Outcome:
    """Kubelet 1.20 takes the options from RegisterRequest, 1.36 from
    GetDevicePluginOptions. The API does not say that they must be the same."""
    await rig.ready()
    registered = (await _request(rig)).options
    answered = await rig.call(api.GET_OPTIONS, pb.Empty(), pb.DevicePluginOptions)
    text = described(answered)
    if registered != answered:
        return reported(
            f"GetDevicePluginOptions: {text}; RegisterRequest: {described(registered)}: old"
            " kubelets and new ones will treat it differently"
        )
    return passed(f"both: {text}")


async def kubelet_before_1_26(rig: Rig) -> Outcome:
    """Kubelets before 1.26 dial after they answered Register, and send the socket's path
    as `:authority`, which strict HTTP/2 servers refuse."""
    await rig.begin(Behaviour())
    await rig.until(lambda: rig.registered, "device list with a path as :authority")
    async with rig.channel(authority=str(rig.endpoint())) as channel:
        await rig.call(api.GET_OPTIONS, pb.Empty(), pb.DevicePluginOptions, channel)
        if healthy := rig.healthy():
            await rig.allocate(healthy[:1], channel=channel)
    return passed("calls with the socket's path as :authority are answered")


async def registers_once(rig: Rig) -> Outcome:
    """The API does not say how often; each registration makes the kubelet dial again."""
    await rig.ready()
    before = len(rig.kubelet.registrations)
    await asyncio.sleep(rig.options.settle)
    again = len(rig.kubelet.registrations) - before
    if again:
        return reported(f"registered {again} more times in {rig.options.settle:g} s")
    return passed("no further registration while the kubelet listens")


CHECKS = (
    registers,
    register_version,
    register_resource_name,
    register_endpoint,
    registers_once,
    serves_before_registering,
    options_agree,
    kubelet_before_1_26,
)


async def _request(rig: Rig) -> pb.RegisterRequest:
    """What the plugin registered with last, accepted or not."""
    if not any(r.resource_name == rig.resource for r in rig.kubelet.registrations):
        await rig.begin()
        try:
            await rig.until(lambda: bool(rig.kubelet.registrations), "Register")
        except (FailedError, ExitedError) as error:
            raise NotReadyError(str(error)) from error
    return [r for r in rig.kubelet.registrations if r.resource_name == rig.resource][-1]


def wrong_resource_name(name: str) -> str | None:
    """What is wrong with an extended resource's name, or None."""
    domain, slash, rest = name.partition("/")
    if not slash:
        return "it has no domain"
    if domain == "kubernetes.io" or domain.endswith(".kubernetes.io"):
        return "kubernetes.io is not for extended resources"
    if name.startswith("requests."):
        return "it must not begin with requests."
    if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        return "what is before the slash is not a DNS domain"
    # A quota's name for it is "requests." and the name, which has to be valid as well.
    if len("requests." + domain) > 253:
        return "the domain is too long for a quota"
    if len(rest) > 63 or not _NAME.fullmatch(rest):
        return "what is after the slash is not a qualified name"
    return None


def described(options: pb.DevicePluginOptions) -> str:
    have = [
        name
        for name, given in (
            ("GetPreferredAllocation", options.get_preferred_allocation_available),
            ("PreStartContainer", options.pre_start_required),
        )
        if given
    ]
    return " and ".join(have) or "no optional calls"


def last_lines(rig: Rig) -> str:
    try:
        text = rig.log.read_text(errors="replace").strip()
    except OSError:
        text = ""
    return repr(text[-300:]) if text else "none"
