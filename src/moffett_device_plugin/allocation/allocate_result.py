"""What a container gets with the devices that were allocated to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..devices.inventory import Device
from ..devices.state import NodeState
from ..hardware.pci import bus_order
from ..hardware.types import DeviceNode, Mount
from ..resources.device_list_strategy import PLAIN, DeviceListStrategy
from ..resources.pools import DEFAULT_RESOURCE, variable_suffix

#: Environment variables of the container, each a comma-separated list, in bus order; and
#: each once more with the resource's name: of two resources in one container, the kubelet
#: keeps one value of a variable that both set.
ENV_IDS = "MOFFETT_SPU_IDS"
ENV_INDEXES = "MOFFETT_SPU_INDEXES"
ENV_BUS_IDS = "MOFFETT_SPU_BUS_IDS"
#: What this plugin is called in the keys of CDI annotations.
CDI_OWNER = "moffett-device-plugin"


class RefusalError(Exception):
    """The devices cannot be given to a container; the text says which and why."""


class UnknownDeviceError(RefusalError):
    """An id that this node does not have."""


@dataclass(frozen=True, slots=True)
class AllocateResult:
    """Device nodes and mounts (host paths and container paths), environment,
    annotations, and the names of CDI devices."""

    nodes: tuple[DeviceNode, ...]
    envs: Mapping[str, str]
    mounts: tuple[Mount, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: tuple[str, ...] = ()


def build_allocate_result(
    ids: Sequence[str],
    state: NodeState,
    known: Mapping[str, Device] | None = None,
    device_list_strategy: DeviceListStrategy = PLAIN,
    sola: Sequence[Mount] | None = (),
    resource: str = DEFAULT_RESOURCE,
) -> AllocateResult:
    """What a container gets with the devices `ids`.

    Raises RefusalError when one is unknown or unhealthy: a container that starts on an
    unhealthy device fails later, and less clearly. `known` is the snapshot's devices by id,
    for callers that have it at hand; `sola` is where the host's SOLA is, None if it
    has none; `resource` is what the container asked for.
    """
    if known is None:
        known = state.snapshot.by_id()
    wanted = set(ids)
    unknown = sorted(wanted - known.keys())
    if unknown:
        raise UnknownDeviceError(f"unknown device {', '.join(unknown)} on this node")
    devices = sorted((known[i] for i in wanted), key=lambda device: bus_order(device.id))
    unhealthy = [device.id for device in devices if not state.healthy(device.id)]
    if unhealthy:
        raise RefusalError("; ".join(why_unhealthy(device_id, state) for device_id in unhealthy))
    if device_list_strategy.inject_sola and sola is None:
        raise RefusalError(
            "injectSola is on and this node has no /usr/local/sola that the plugin can see"
        )
    names = _cdi_names(devices, device_list_strategy) if device_list_strategy.uses_cdi else ()
    return AllocateResult(
        nodes=_nodes_of(devices, state)
        if "device-specs" in device_list_strategy.strategies
        else (),
        envs=environment_of(devices, resource),
        mounts=tuple(sola or ()) if device_list_strategy.inject_sola and devices else (),
        annotations=(
            _annotations(names, resource)
            if "cdi-annotations" in device_list_strategy.strategies
            else {}
        ),
        cdi_devices=names if "cdi-cri" in device_list_strategy.strategies else (),
    )


def environment_of(devices: Sequence[Device], resource: str) -> Mapping[str, str]:
    """The variables by which a container finds `devices`, which are in bus order;
    `resource` is what it asked for."""
    envs = {
        ENV_IDS: ",".join(device.id for device in devices),
        ENV_INDEXES: ",".join(str(device.index) for device in devices),
        ENV_BUS_IDS: ",".join(device.function.bus_id for device in devices),
    }
    suffix = variable_suffix(resource)
    return envs | {f"{name}_{suffix}": value for name, value in envs.items()}


def _nodes_of(devices: Sequence[Device], state: NodeState) -> tuple[DeviceNode, ...]:
    if not devices:
        return ()
    own = [node for device in devices for node in device.function.nodes]
    nodes: dict[str, DeviceNode] = {}
    for node in (*own, *state.snapshot.control_nodes):
        nodes.setdefault(node.container_path, node)
    return tuple(nodes.values())


def _cdi_names(
    devices: Sequence[Device], device_list_strategy: DeviceListStrategy
) -> tuple[str, ...]:
    from ..cdi.names import device_name, qualified  # only those who use CDI pay for it

    return tuple(
        qualified(device_list_strategy.cdi_kind, device_name(device.id)) for device in devices
    )


def _annotations(names: Sequence[str], resource: str) -> Mapping[str, str]:
    from ..cdi.names import annotation

    # A container may ask for several of our resources, each with a key of its own.
    return dict([annotation(CDI_OWNER, resource, names)]) if names else {}


def why_unhealthy(device_id: str, state: NodeState) -> str:
    """One clause that names the device and everything that is wrong with it."""
    reasons = state.health_statuses[device_id].reasons
    return f"device {device_id} is unhealthy: " + (
        ", ".join(f"{reason.code} ({reason.message})" for reason in reasons) or "not evaluated yet"
    )
