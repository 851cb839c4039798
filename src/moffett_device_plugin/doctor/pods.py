"""What the kubelet says that it gave to pods."""

from __future__ import annotations

from collections.abc import Iterable

from .context import Site
from .findings import Finding, bad, count, doubt, good, skipped, some
from .holders import by_device, named, strays
from .plugin import expected_names


def pod_resources(site: Site) -> Iterable[Finding]:
    if site.held.why_not is not None:
        return [
            skipped(
                f"which pods hold what is not known: {site.held.why_not}",
                f"mount {site.pod_resources.parent} from the host and run as root;"
                " kubelets have it since 1.15",
            )
        ]
    held = by_device(site.held, site.state.snapshot)
    pods = {(holder.namespace, holder.pod) for holders in held.values() for holder in holders}
    total = len(site.state.snapshot.devices)
    text = f"{len(held)} of {count(total, 'device')} held by {count(len(pods), 'pod')}"
    return [good(text)]


def held_devices(site: Site) -> Iterable[Finding]:
    """Pods whose device is unhealthy, or is not this node's any more. Kubernetes does
    nothing about that by itself."""
    if not site.held.known:
        return [skipped("which pods hold what is not known")]
    findings: list[Finding] = []
    for device_id, holders in by_device(site.held, site.state.snapshot).items():
        verdict = site.state.verdicts[device_id]
        if not verdict.healthy:
            codes = ", ".join(sorted(verdict.codes))
            findings.append(
                bad(
                    f"it is unhealthy ({codes}) and held by {named(holders)}",
                    "heal the device, or delete the pod so that its controller makes it anew on"
                    " a healthy one: Kubernetes does neither by itself",
                    device_id,
                )
            )
    for unit_id, holders in strays(site.held, site.state.snapshot, expected_names(site)).items():
        findings.append(
            doubt(
                f"no such device is on this node, and {named(holders)} holds it",
                "delete the pod: it was admitted with another plugin, or before the card left",
                unit_id,
            )
        )
    for division in site.divisions():
        findings += [
            doubt(
                f"{base.held}, so it is not given out as {division.name}",
                "nothing: it comes back when that pod has gone; delete the pod to have it now",
                base.id,
            )
            for base in division.bases
            if base.held
        ]
    for unit_id, text in _twice_held(site):
        findings.append(
            doubt(
                f"two pods hold it: {text}",
                "nothing if one of them has finished: the kubelet lists it until it is deleted",
                unit_id,
            )
        )
    return findings or [good("no pod holds an unhealthy or unknown device")]


def _twice_held(site: Site) -> Iterable[tuple[str, str]]:
    """Units, not devices: a shared device has a replica for each of its pods."""
    for name in expected_names(site):
        for unit_id, holders in site.held.units.get(name, {}).items():
            pods = dict.fromkeys((holder.namespace, holder.pod) for holder in holders)
            if len(pods) > 1:
                yield unit_id, some(f"{namespace}/{pod}" for namespace, pod in pods)
