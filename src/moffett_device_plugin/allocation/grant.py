"""What a container gets with the devices that were allocated to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..hardware.facts import DeviceNode
from ..hardware.pci import bus_order
from ..inventory import Device
from ..node import NodeState

#: Environment variables of the container, each a comma-separated list, in bus order.
ENV_IDS = "MOFFETT_SPU_IDS"
ENV_INDEXES = "MOFFETT_SPU_INDEXES"
ENV_BUS_IDS = "MOFFETT_SPU_BUS_IDS"


class RefusalError(Exception):
    """The devices cannot be given to a container; the text says which and why."""


class UnknownDeviceError(RefusalError):
    """An id that this node does not have."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Device nodes (host paths and container paths) and environment."""

    nodes: tuple[DeviceNode, ...]
    envs: Mapping[str, str]


def grant(ids: Sequence[str], state: NodeState, known: Mapping[str, Device] | None = None) -> Grant:
    """Raises RefusalError when a device is unknown or unhealthy: a container that
    starts on a sick device fails later, and less clearly. `known` is the snapshot's
    devices by id, for callers that have it at hand."""
    if known is None:
        known = state.snapshot.by_id()
    wanted = set(ids)
    unknown = sorted(wanted - known.keys())
    if unknown:
        raise UnknownDeviceError(f"unknown device {', '.join(unknown)} on this node")
    devices = sorted((known[i] for i in wanted), key=lambda device: bus_order(device.id))
    sick = [device.id for device in devices if not state.healthy(device.id)]
    if sick:
        raise RefusalError("; ".join(why_sick(device_id, state) for device_id in sick))
    nodes: dict[str, DeviceNode] = {}
    for node in (*_nodes_of(devices), *state.snapshot.control_nodes):
        nodes.setdefault(node.container_path, node)
    return Grant(
        nodes=tuple(nodes.values()) if devices else (),
        envs={
            ENV_IDS: ",".join(device.id for device in devices),
            ENV_INDEXES: ",".join(str(device.index) for device in devices),
            ENV_BUS_IDS: ",".join(device.function.bus_id for device in devices),
        },
    )


def _nodes_of(devices: Sequence[Device]) -> list[DeviceNode]:
    return [node for device in devices for node in device.function.nodes]


def why_sick(device_id: str, state: NodeState) -> str:
    """One clause that names the device and everything that is wrong with it."""
    reasons = state.verdicts[device_id].reasons
    return f"device {device_id} is unhealthy: " + (
        ", ".join(f"{reason.code} ({reason.message})" for reason in reasons) or "not judged yet"
    )
