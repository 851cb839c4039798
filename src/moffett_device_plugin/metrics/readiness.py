"""Readiness: whether devices can be given out. Pure."""

from __future__ import annotations

from .view import View


def unready(view: View) -> str | None:
    """The reason, or None when ready: every resource is registered, or there is none, and
    with DRA the driver is registered and the devices are published. A node without devices
    is ready too, or a rollout of the DaemonSet would never finish."""
    if not view.state.settled:
        return "the devices of the node have not been evaluated yet"
    wanted = [pool.name for pool in view.pools if pool.devices]
    missing = [name for name in wanted if not view.registered.get(name)]
    if missing:
        return f"not registered with the kubelet: {', '.join(missing)}"
    if view.dra is not None and view.dra.on:
        if not view.dra.registered:
            return "the DRA driver is not registered with the kubelet"
        if not view.dra.published:
            return "the devices are not published: the API server does not have their slices"
    return None
