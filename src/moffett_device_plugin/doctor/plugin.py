"""The plugin as the kubelet sees it: its sockets, its responses, its registration."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..deviceplugin.socket_names import instance_of, socket_prefix
from ..grpc.client import Channel
from ..grpc.messages import StatusError
from ..resources.pools import DEFAULT_RESOURCE
from .context import Context
from .findings import Finding, Findings, count, fail, ok, skip, some, warn
from .kubelet import connect_error, sockets_in

CALL_TIMEOUT = 2.0
_NONE = "no resource is advertised"
_LOG = "look at the daemon's log (kubectl logs) for waiting-for-kubelet"


def expected_names(context: Context) -> tuple[str, ...]:
    """What this node advertises, as far as its configuration says; sorted."""
    names = {pool.name for pool in context.pools()}
    names |= {resource.name for resource in context.resources if resource.name is not None}
    return tuple(sorted(names))


def plugin(context: Context) -> Findings:
    """One instance for each resource, and it responds as the kubelet would call it."""
    sockets = sockets_in(context.kubelet_dir)
    findings: list[Finding] = []
    for name in expected_names(context):
        own = [path for path in sockets if path.name.startswith(socket_prefix(name))]
        live = [path for path in own if connect_error(path) is None]
        instances = sorted({instance_of(path.name) for path in live})
        if len(instances) > 1:
            text = f"{len(instances)} instances of the plugin serve it: {some(instances)}"
            remedy = "none during a rolling update; otherwise delete the extra DaemonSet"
            findings.append(warn(text, remedy, name))
        findings += [_call(name, path, context) for path in live]
        if not live:
            findings.append(
                fail(
                    "no plugin serves it" + (f" ({len(own)} socket(s) remain)" if own else ""),
                    "check that the DaemonSet's pod runs on this node (kubectl get pods -o wide)"
                    f" with the same --resource-name and --kubelet-dir; {_LOG}",
                    name,
                )
            )
    return findings or skip(_NONE)


def _call(name: str, path: Path, context: Context) -> Finding:
    began = time.monotonic()
    try:
        text = asyncio.run(_ask(path, listed=context.options.list_and_watch))
    except (OSError, StatusError, DecodeError, TimeoutError) as error:
        return fail(
            f"{path.name} does not respond: {str(error) or 'timeout'}",
            "look at the daemon's log and restart its pod; if it happens again, report it",
            name,
        )
    took = (time.monotonic() - began) * 1000
    return ok(f"{path.name} responds in {took:.0f} ms: {text}", name)


async def _ask(path: Path, *, listed: bool) -> str:
    """Its options; its list only if asked for, because the end of that call is for the
    plugin what the end of a kubelet is, and it registers again."""
    async with await Channel.connect(path) as channel:
        empty = pb.Empty().SerializeToString()
        raw = await channel.unary(api.GET_OPTIONS, empty, CALL_TIMEOUT)
        options = pb.DevicePluginOptions.FromString(raw)
        calls = ["GetPreferredAllocation"] * options.get_preferred_allocation_available + [
            "PreStartContainer"
        ] * options.pre_start_required
        text = f"optional calls: {' and '.join(calls) or 'none'}"
        if listed:
            raw = await channel.unary(api.LIST_AND_WATCH, empty, CALL_TIMEOUT)
            devices = pb.ListAndWatchResponse.FromString(raw).devices
            healthy = sum(device.health == api.HEALTHY for device in devices)
            text += f"; lists {count(len(devices), 'device')}, {healthy} healthy"
    return text


def registration(context: Context) -> Findings:
    """What the kubelet recorded of our resources, against what they should be."""
    path = context.kubelet_dir / api.KUBELET_CHECKPOINT
    try:
        registered = registered_devices(path.read_bytes())
    except FileNotFoundError:
        return skip(f"no {path.name}: no plugin has registered yet", _LOG)
    except PermissionError:
        return skip(f"{path}: only root can read it", "run the doctor as root")
    except (OSError, ValueError) as error:
        remedy = "a damaged checkpoint: delete it and restart the kubelet"
        return warn(f"{path}: {error}", remedy)
    findings: list[Finding] = []
    for pool in context.pools():
        healthy = {device.id for device in pool.advertised() if device.healthy}
        every = {device.id for device in pool.advertised()}
        findings.append(_compare(pool.name, healthy, every, registered))
    return findings or skip(_NONE)


def _compare(
    name: str, healthy: set[str], every: set[str], registered: Mapping[str, Sequence[str]]
) -> Finding:
    if name not in registered:
        return fail("the kubelet does not know this resource", f"{_LOG} and registered", name)
    devices = set(registered[name])
    foreign = sorted(devices - every)
    if foreign:
        return fail(
            f"the kubelet has {some(foreign, 2)} for it, which this plugin would not list:"
            " another plugin has registered last, or the configuration is different",
            "one plugin for one resource: delete the other DaemonSet (the vendor's v0.1.0 has the"
            " same resource), or give this one another --resource-name",
            name,
        )
    text = f"the kubelet has {count(len(devices), 'healthy device')}"
    if devices != healthy:
        remedy = f"none if a device has just changed; otherwise {_LOG}"
        return warn(f"{text}, and {len(healthy)} are healthy now", remedy, name)
    return ok(f"{text}, as expected", name)


def registered_devices(checkpoint: bytes) -> Mapping[str, Sequence[str]]:
    """The healthy devices of each resource by the kubelet's own record (in it since 1.10).
    Raises ValueError."""
    found = json.loads(checkpoint)
    for key in ("Data", "RegisteredDevices"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise ValueError("it has no list of registered devices")  # noqa: TRY004
    return {str(name): [str(id) for id in devices or ()] for name, devices in found.items()}


def other_plugins(context: Context) -> Findings:
    """Live plugins whose socket names suggest SPUs. A socket does not say which resource it
    is for."""
    ours = tuple(socket_prefix(name) for name in expected_names(context))
    findings = [
        warn(
            "another plugin for SPUs seems to run",
            f"if it serves {DEFAULT_RESOURCE} as well, delete its DaemonSet: the kubelet calls"
            " the one that registered last",
            path.name,
        )
        for path in sockets_in(context.kubelet_dir)
        if not path.name.startswith(ours)
        and any(word in path.name.lower() for word in ("spu", "moffett"))
        and connect_error(path) is None
    ]
    return findings or ok("no other plugin for SPUs was found")


def cdi(context: Context) -> Findings:
    """With a CDI strategy, container engines have to find the plugin's spec."""
    if not context.device_list_strategy.uses_cdi:
        return skip("no CDI strategy is on")
    from ..cdi.directory import CdiDirectory

    path = CdiDirectory(context.cdi_dir, context.device_list_strategy.cdi_kind).file
    try:
        spec = json.loads(path.read_bytes())
        names = {str(device["name"]) for device in spec["devices"]}
    except OSError as error:
        return fail(
            f"{path}: {error.strerror}; containers fail with unresolvable CDI devices",
            "mount the host's directory there, writable; look at the daemon's log for"
            " cdi-unavailable",
        )
    except (ValueError, KeyError, TypeError) as error:
        remedy = "delete it: the plugin writes it again"
        return fail(f"{path} is not a CDI spec: {error}", remedy)
    missing = [d.id for d in context.present if d.function.nodes and d.id not in names]
    if missing:
        remedy = "check that the daemon runs: it writes the spec when devices change"
        return fail(f"not in {path}", remedy, *missing)
    return ok(f"{path} has {count(len(names), 'name')}")
