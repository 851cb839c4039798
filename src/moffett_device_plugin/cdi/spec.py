"""What a node's CDI spec holds: its devices, its cards, and all of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from ..devices.cards import cards_of
from ..devices.inventory import Device, Snapshot
from ..hardware.types import DeviceNode, Mount
from .names import ALL, DEFAULT_KIND, device_name, split_kind

Spec = Mapping[str, Any]

#: Versions of CDI that a spec may declare. An engine refuses a file of a version that it
#: does not know, whatever the file holds, so the oldest that will do reaches the most.
Version = Literal["0.5.0", "0.6.0"]
VERSIONS: tuple[Version, ...] = ("0.5.0", "0.6.0")
DEFAULT_VERSION: Version = "0.6.0"

#: A bind mount that a container can only read, and gains no privileges from.
READ_ONLY = ("ro", "nosuid", "nodev", "bind")


def build_spec(
    snapshot: Snapshot,
    kind: str = DEFAULT_KIND,
    mounts: Sequence[Mount] = (),
    at_least: Version = DEFAULT_VERSION,
) -> Spec | None:
    """The node's spec, or None when there is nothing to name: CDI has no empty specs.

    `mounts` are what every container with an SPU gets besides; their host paths have to
    be there when it starts. `at_least` is the version to declare if the content needs no
    later one.
    Raises IllegalNameError for a wrong `kind`.

    What exists has a name: an unhealthy device too, since who may have it is decided by the
    kubelet and the allocator, and a container that holds it must be able to restart with
    the same names. What left the bus has none, so that an engine refuses it by name
    rather than hand out a node that by now may be another device's.
    """
    _, class_name = split_kind(kind)
    present = [device for device in snapshot.devices if _has_name(device)]
    if not present:
        return None
    devices = [_named(device.id, [device]) for device in present]
    devices += [_named(card_id, members) for card_id, members in _cards(snapshot)]
    devices.append({"name": ALL, "containerEdits": _edits(present)})
    spec: dict[str, Any] = {
        "cdiVersion": _version(class_name, at_least),
        "kind": kind,
        "devices": devices,
    }
    if shared := _shared_edits(snapshot, present, mounts):
        spec["containerEdits"] = shared
    return spec


def to_text(spec: Spec) -> str:
    """The spec as a file: the same text for the same spec."""
    return json.dumps(spec, indent=2) + "\n"


def _cards(snapshot: Snapshot) -> Iterator[tuple[str, list[Device]]]:
    """Each card and what is on it now, as `all` is what is there now. Its id comes from
    all of its devices, those that left too, as it does for the kubelet."""
    members: dict[str, list[Device]] = {}
    for card in cards_of(snapshot.devices):
        # One name twice makes engines refuse the whole file, and serials that mx-smi got
        # wrong can make two cards of what is behind one switch.
        members.setdefault(card.id, []).extend(filter(_has_name, card.devices))
    return ((card_id, devices) for card_id, devices in members.items() if devices)


def nodes_there(device: Device) -> tuple[DeviceNode, ...]:
    """The nodes that an engine could make: those of a device on the bus which are in the
    host's `/dev` too. An engine does not start a container for which one is missing."""
    if not device.present:
        return ()
    missing = device.function.missing_nodes
    return tuple(node for node in device.function.nodes if node.host_path not in missing)


def _has_name(device: Device) -> bool:
    # One device without edits makes engines refuse the whole file, and a device without
    # nodes has nothing to inject.
    return bool(nodes_there(device))


def _named(unit_id: str, devices: Iterable[Device]) -> dict[str, Any]:
    return {"name": device_name(unit_id), "containerEdits": _edits(devices)}


def _edits(devices: Iterable[Device]) -> dict[str, Any]:
    # No environment: a container with two devices gets the edits of both, and of two
    # values of one variable the last would win. Lists of devices are Allocate's to give.
    nodes = (node for device in devices for node in nodes_there(device))
    return {"deviceNodes": _nodes(nodes)}


def _shared_edits(
    snapshot: Snapshot, devices: Iterable[Device], mounts: Iterable[Mount]
) -> dict[str, Any]:
    """What any device brings along. It is the spec's own, not each device's: engines
    apply that once, however many devices of the spec a container asks for."""
    owned = {node.container_path for device in devices for node in nodes_there(device)}
    edits: dict[str, Any] = {}
    if nodes := [n for n in snapshot.control_nodes if n.container_path not in owned]:
        edits["deviceNodes"] = _nodes(nodes)
    if binds := [mount_edit(mount) for mount in mounts]:
        edits["mounts"] = binds
    return edits


def _nodes(nodes: Iterable[DeviceNode]) -> list[dict[str, Any]]:
    """Each container path once, the first node winning, as in Allocate's answer.

    Without type and numbers, which engines then read from the host's node when a
    container starts: a card that reboots may come back with others.
    """
    by_path: dict[str, DeviceNode] = {}
    for node in nodes:
        by_path.setdefault(node.container_path, node)
    return [_node(node) for node in by_path.values()]


def _node(node: DeviceNode) -> dict[str, Any]:
    node_edit = {"path": node.container_path}
    if node.host_path != node.container_path:
        node_edit["hostPath"] = node.host_path
    return {**node_edit, "permissions": node.permissions}


def mount_edit(mount: Mount) -> dict[str, Any]:
    """The mount as an engine makes it: read-only."""
    return {
        "hostPath": mount.host_path,
        "containerPath": mount.container_path,
        "options": list(READ_ONLY),
    }


def _version(class_name: str, at_least: Version) -> Version:
    """0.5.0 has `hostPath` and names that begin with a digit, as bus ids do; 0.6.0 is
    needed for a dot in the kind's class."""
    needed: Version = "0.6.0" if "." in class_name else "0.5.0"
    return max(needed, at_least, key=VERSIONS.index)
