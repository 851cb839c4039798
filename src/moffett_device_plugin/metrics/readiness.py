"""Whether the kubelet has what it should have of us. Pure."""

from __future__ import annotations

from .view import View


def unready(view: View) -> str | None:
    """Why not yet; None when every resource is registered, or there is none to register:
    a node without devices is ready too, or a DaemonSet would never come up."""
    if not view.state.settled:
        return "the node's devices have not been looked at yet"
    wanted = [pool.name for pool in view.pools if pool.devices]
    missing = [name for name in wanted if not view.registered.get(name)]
    return f"not registered with the kubelet: {', '.join(missing)}" if missing else None
