"""What the kubelet says that pods hold."""

from __future__ import annotations

from collections.abc import Iterable

from .context import Context
from .findings import Findings, count, fail, ok, skip, some, warn
from .holders import by_device, named, strays
from .plugin import expected_names


def pod_resources(context: Context) -> Findings:
    if context.pod_resources is None:
        return skip("which pods hold devices is not known: podResourcesSocket is none")
    if context.held.why_not is not None:
        return skip(
            f"which pods hold devices is not known: {context.held.why_not}",
            f"mount {context.pod_resources.parent} from the host and run as root (kubelets"
            " have it since 1.15)",
        )
    held = by_device(context.held, context.state.snapshot)
    pods = {(holder.namespace, holder.pod) for holders in held.values() for holder in holders}
    devices = count(len(context.devices), "device")
    return ok(f"{len(held)} of {devices} held by {count(len(pods), 'pod')}")


def held_devices(context: Context) -> Findings:
    """Pods whose device is unhealthy, or is not this node's any more. Kubernetes does
    nothing about that by itself."""
    if not context.held.known:
        return pod_resources(context)  # one cause, one line
    snapshot = context.state.snapshot
    sound = context.state.without_cordons()  # a pod keeps what is cordoned
    findings = [
        fail(
            f"unhealthy, and held by {named(holders)}",
            "delete the pod, so that its controller makes a new one on healthy devices",
            device_id,
        )
        for device_id, holders in by_device(context.held, snapshot).items()
        if not sound.healthy(device_id)
    ]
    findings += [
        warn(
            f"not a device of this node, and held by {named(holders)}",
            "delete the pod: it was admitted with another plugin, or before the card left",
            id,
        )
        for id, holders in strays(context.held, snapshot, expected_names(context)).items()
    ]
    findings += [
        warn(
            f"{device.held}, so it is not available as {pool.name}",
            "none: it is available again when that pod ends; delete the pod to have it now",
            device.id,
        )
        for pool in context.pools()
        for device in pool.devices
        if device.held
    ]
    findings += [
        warn(
            f"held by two pods: {text}",
            "none if one of them has finished: the kubelet lists it until it is deleted",
            id,
        )
        for id, text in _twice_held(context)
    ]
    return findings or ok("no pod holds an unhealthy or unknown device")


def _twice_held(context: Context) -> Iterable[tuple[str, str]]:
    """Advertised devices, not SPU devices: a shared one has a replica for each pod."""
    for name in expected_names(context):
        for id, holders in context.held.by_resource.get(name, {}).items():
            pods = dict.fromkeys((holder.namespace, holder.pod) for holder in holders)
            if len(pods) > 1:
                yield id, some(f"{namespace}/{pod}" for namespace, pod in pods)
