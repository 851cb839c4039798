"""Readiness: whether every resource is registered with the kubelet. Pure."""

from __future__ import annotations

from .view import View


def unready(view: View) -> str | None:
    """The reason, or None when ready: every resource is registered, or there is none. A
    node without devices is ready too, or a rollout of the DaemonSet would never finish."""
    if not view.state.settled:
        return "the devices of the node have not been evaluated yet"
    wanted = [pool.name for pool in view.pools if pool.devices]
    missing = [name for name in wanted if not view.registered.get(name)]
    return f"not registered with the kubelet: {', '.join(missing)}" if missing else None
