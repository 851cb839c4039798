"""What the kubelet says that it gave to pods."""

from __future__ import annotations

from collections.abc import Iterable

from .context import Context
from .findings import Finding, count, fail, ok, skip, some, warn
from .holders import by_device, named, strays
from .plugin import expected_names


def pod_resources(context: Context) -> Iterable[Finding]:
    if context.held.why_not is not None:
        return [
            skip(
                f"which pods hold what is not known: {context.held.why_not}",
                f"mount {context.pod_resources.parent} from the host and run as root;"
                " kubelets have it since 1.15",
            )
        ]
    held = by_device(context.held, context.state.snapshot)
    pods = {(holder.namespace, holder.pod) for holders in held.values() for holder in holders}
    total = len(context.state.snapshot.devices)
    text = f"{len(held)} of {count(total, 'device')} held by {count(len(pods), 'pod')}"
    return [ok(text)]


def held_devices(context: Context) -> Iterable[Finding]:
    """Pods whose device is unhealthy, or is not this node's any more. Kubernetes does
    nothing about that by itself."""
    if not context.held.known:
        return [skip("which pods hold what is not known")]
    findings: list[Finding] = []
    for device_id, holders in by_device(context.held, context.state.snapshot).items():
        health_status = context.state.health_statuses[device_id]
        if not health_status.healthy:
            codes = ", ".join(sorted(health_status.codes))
            findings.append(
                fail(
                    f"it is unhealthy ({codes}) and held by {named(holders)}",
                    "heal the device, or delete the pod so that its controller makes it anew on"
                    " a healthy one: Kubernetes does neither by itself",
                    device_id,
                )
            )
    for unit_id, holders in strays(
        context.held, context.state.snapshot, expected_names(context)
    ).items():
        findings.append(
            warn(
                f"no such device is on this node, and {named(holders)} holds it",
                "delete the pod: it was admitted with another plugin, or before the card left",
                unit_id,
            )
        )
    for pool in context.pools():
        findings += [
            warn(
                f"{base.held}, so it is not given out as {pool.name}",
                "nothing: it comes back when that pod has gone; delete the pod to have it now",
                base.id,
            )
            for base in pool.devices
            if base.held
        ]
    for unit_id, text in _twice_held(context):
        findings.append(
            warn(
                f"two pods hold it: {text}",
                "nothing if one of them has finished: the kubelet lists it until it is deleted",
                unit_id,
            )
        )
    return findings or [ok("no pod holds an unhealthy or unknown device")]


def _twice_held(context: Context) -> Iterable[tuple[str, str]]:
    """Units, not devices: a shared device has a replica for each of its pods."""
    for name in expected_names(context):
        for unit_id, holders in context.held.units.get(name, {}).items():
            pods = dict.fromkeys((holder.namespace, holder.pod) for holder in holders)
            if len(pods) > 1:
                yield unit_id, some(f"{namespace}/{pod}" for namespace, pod in pods)
