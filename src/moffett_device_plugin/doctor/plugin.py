"""Our plugin as the kubelet meets it: its sockets, its answers, its registration."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..deviceplugin.socket_names import instance_of, socket_prefix
from ..grpc.client import Channel
from ..grpc.messages import StatusError
from ..resources.pools import DEFAULT_RESOURCE
from .context import Context
from .findings import Finding, count, fail, ok, skip, some, warn
from .kubelet import connect_error, sockets_in

CALL_TIMEOUT = 2.0
_LOG = "look at the daemon's log (kubectl logs) for waiting-for-kubelet"


def expected_names(context: Context) -> tuple[str, ...]:
    """What this node advertises, as far as its configuration tells; sorted."""
    names = {pool.name for pool in context.pools()}
    names |= {resource.name for resource in context.resources if resource.name is not None}
    return tuple(sorted(names))


def plugin(context: Context) -> Iterable[Finding]:
    """One living copy for each resource, and it answers as the kubelet would ask."""
    try:
        sockets = sockets_in(context.kubelet_dir)
    except OSError as error:
        return [skip(f"{context.kubelet_dir}: {error.strerror}")]
    findings: list[Finding] = []
    for name in expected_names(context):
        own = [path for path in sockets if path.name.startswith(socket_prefix(name))]
        alive = [path for path in own if connect_error(path) is None]
        if not alive:
            findings.append(_absent(name, context, dead=len(own)))
            continue
        copies = sorted({instance_of(path.name) for path in alive})
        if len(copies) > 1:
            findings.append(
                warn(
                    f"{len(copies)} copies of the plugin serve it: {some(copies)}",
                    "nothing during a rolling update; else delete the DaemonSet that is too many",
                    name,
                )
            )
        findings += [_answer(name, path, context) for path in alive]
    return findings or [skip("no resource is configured")]


def _absent(name: str, context: Context, dead: int) -> Finding:
    if not context.state.snapshot.devices:
        return skip("a node without cards advertises nothing", subject=name)
    text = "no plugin serves it" + (f" ({count(dead, 'dead socket')})" if dead else "")
    return fail(
        text,
        "is the DaemonSet's pod running on this node (kubectl get pods -o wide)? If it is,"
        " does it have the same --resource-name and --kubelet-dir? " + _LOG,
        name,
    )


def _answer(name: str, path: Path, context: Context) -> Finding:
    began = time.monotonic()
    try:
        text = asyncio.run(_ask(path, listed=context.options.list_and_watch))
    except (OSError, StatusError, DecodeError, TimeoutError) as error:
        return fail(
            f"{path.name} does not answer: {str(error) or 'no answer in time'}",
            "look at the daemon's log and restart its pod; if it comes back, report it",
            name,
        )
    took = (time.monotonic() - began) * 1000
    return ok(f"{path.name} answers in {took:.0f} ms: {text}", name)


async def _ask(path: Path, *, listed: bool) -> str:
    """Its options; its list only if asked for, because the end of that call is for the
    plugin what the end of a kubelet is, and it registers again."""
    async with await Channel.connect(path) as channel:
        empty = pb.Empty().SerializeToString()
        raw = await channel.unary(api.GET_OPTIONS, empty, CALL_TIMEOUT)
        options = pb.DevicePluginOptions.FromString(raw)
        wanted = [
            what
            for what, on in (
                ("GetPreferredAllocation", options.get_preferred_allocation_available),
                ("PreStartContainer", options.pre_start_required),
            )
            if on
        ]
        text = f"it wants {' and '.join(wanted) or 'no optional call'}"
        if listed:
            raw = await channel.unary(api.LIST_AND_WATCH, empty, CALL_TIMEOUT)
            devices = pb.ListAndWatchResponse.FromString(raw).devices
            healthy = sum(device.health == api.HEALTHY for device in devices)
            text += f", and lists {count(len(devices), 'unit')}, {healthy} healthy"
    return text


def registration(context: Context) -> Iterable[Finding]:
    """What the kubelet wrote down of our resources, against what they should be."""
    path = context.kubelet_dir / api.KUBELET_CHECKPOINT
    if not context.state.snapshot.devices:
        return [skip("a node without cards advertises nothing")]
    try:
        known = registered_units(path.read_bytes())
    except FileNotFoundError:
        return [skip(f"the kubelet has no {path.name}: no plugin has registered yet", _LOG)]
    except PermissionError:
        return [skip(f"{path}: it is for root only", "run the doctor as root")]
    except (OSError, ValueError) as error:
        remedy = "a damaged checkpoint: delete it and restart the kubelet"
        return [warn(f"{path}: {error}", remedy)]
    findings: list[Finding] = []
    for pool in context.pools():
        healthy = {unit.id for unit in pool.advertised() if unit.healthy}
        every = {unit.id for unit in pool.advertised()}
        findings.append(_compare(pool.name, healthy, every, known))
    return findings or [skip("nothing is advertised")]


def _compare(
    name: str, healthy: set[str], every: set[str], known: Mapping[str, Sequence[str]]
) -> Finding:
    if name not in known:
        return fail("the kubelet knows no such resource", f"{_LOG} and for registered", name)
    units = set(known[name])
    foreign = sorted(units - every)
    if foreign:
        return fail(
            f"the kubelet has {some(foreign, 2)} for it, which this plugin would not list:"
            " another plugin has registered last, or the configuration is another",
            "one plugin for one resource: delete the other DaemonSet (the vendor's v0.1.0 has the"
            " same resource), or give this one another --resource-name",
            name,
        )
    if units != healthy:
        return warn(
            f"the kubelet has {count(len(units), 'healthy unit')} where {len(healthy)} are"
            " healthy now",
            f"nothing if a device has just changed; else {_LOG}",
            name,
        )
    return ok(f"the kubelet has {count(len(units), 'healthy unit')}, as it should", name)


def registered_units(checkpoint: bytes) -> Mapping[str, Sequence[str]]:
    """The healthy units of each resource by the kubelet's own record (in it since 1.10).
    Raises ValueError."""
    found = json.loads(checkpoint)
    for key in ("Data", "RegisteredDevices"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise ValueError("it does not say which devices are registered")  # noqa: TRY004
    return {str(name): [str(unit) for unit in units or ()] for name, units in found.items()}


def other_plugins(context: Context) -> Iterable[Finding]:
    """Living plugins beside ours whose names speak of SPUs. A socket does not tell which
    resource it is for."""
    try:
        sockets = sockets_in(context.kubelet_dir)
    except OSError as error:
        return [skip(f"{context.kubelet_dir}: {error.strerror}")]
    ours = tuple(socket_prefix(name) for name in expected_names(context))
    suspects = [
        path
        for path in sockets
        if path.name != api.KUBELET_SOCKET
        and not path.name.startswith(ours)
        and ("spu" in path.name.lower() or "moffett" in path.name.lower())
        and connect_error(path) is None
    ]
    if suspects:
        return [
            warn(
                "another plugin for SPUs seems to run beside this one",
                f"if it serves {DEFAULT_RESOURCE} as well, delete its DaemonSet: the kubelet"
                " calls whichever registered last",
                path.name,
            )
            for path in suspects
        ]
    return [ok("no other plugin for SPUs is to be seen")]


def cdi(context: Context) -> Iterable[Finding]:
    """With a CDI strategy, container engines have to find the plugin's spec."""
    if not context.device_list_strategy.uses_cdi:
        return [skip("no CDI strategy is on: the kubelet makes the device nodes")]
    if not context.state.snapshot.devices:
        return [skip("a node without cards has no CDI spec")]
    from ..cdi.directory import CdiDirectory

    path = CdiDirectory(context.cdi_dir, context.device_list_strategy.cdi_kind).file
    try:
        spec = json.loads(path.read_bytes())
        names = {str(device["name"]) for device in spec["devices"]}
    except OSError as error:
        return [
            fail(
                f"{path}: {error.strerror}; containers fail with unresolvable CDI devices",
                "mount the host's directory there, writable; look at the daemon's log for"
                " cdi-unavailable",
            )
        ]
    except (ValueError, KeyError, TypeError) as error:
        return [fail(f"{path} is no CDI spec: {error}", "delete it: the plugin writes it again")]
    here = (d for d in context.state.snapshot.devices if d.present and d.function.nodes)
    missing = [device.id for device in here if device.id not in names]
    if missing:
        text = f"{path} does not know {some(missing)}"
        return [fail(text, "is the daemon running? It writes the spec when devices change")]
    return [ok(f"{path} has {count(len(names), 'name')}")]
