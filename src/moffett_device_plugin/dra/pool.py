"""The node's slices: a function of its state. Pure."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..devices.cards import cards_of
from ..devices.state import NodeState
from .attributes import attributes, capacity
from .names import DRIVER, device_name, pool_name, taint_key

API_VERSION = "resource.k8s.io/v1"
#: The key of the taint of a chip that a pod has through the device plugin API.
HELD = "held"
#: Devices of a slice: a server takes no more as soon as one of them has a taint, and a device
#: does not move to another slice when it becomes unhealthy.
MAX_DEVICES = 64
_MAX_TAINTS = 16
_LONGEST_NAME = 253

Slice = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """The Node object that owns the slices: they go when it goes."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What the slices are made from. `held`: chips that pods have through the device plugin
    API. `chips`: those given out through DRA, None: all. `evict`: the codes of reasons that
    end the pods of a chip. `taints`: whether the server keeps them; without, an unhealthy
    chip is left out."""

    state: NodeState
    held: Mapping[str, str] = field(default_factory=dict)
    chips: frozenset[str] | None = None
    evict: frozenset[str] = frozenset()
    taints: bool = True


def slice_name(node: str, number: int = 0) -> str:
    """Slices are searched in the order of their names."""
    name = f"{number:05}-{DRIVER}-{node}"
    if len(name) <= _LONGEST_NAME:
        return name
    checksum = f"{crc32(node.encode()):08x}"
    return f"{name[: _LONGEST_NAME - len(checksum) - 1].rstrip('-.')}-{checksum}"


def build_slices(offer: Offer, node: Node) -> tuple[Slice, ...]:
    """The slices of the node's pool, with their devices in bus order: a card's chips are
    neighbours, and the scheduler takes the first that fit. One that is empty where the node
    has no chips: the driver is there, and has none."""
    devices = _devices(offer)
    parts = [devices[at : at + MAX_DEVICES] for at in range(0, len(devices), MAX_DEVICES)] or [[]]
    return tuple(_slice(node, number, len(parts), part) for number, part in enumerate(parts))


def _slice(node: Node, number: int, count: int, devices: list[Mapping[str, Any]]) -> Slice:
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourceSlice",
        "metadata": {
            "name": slice_name(node.name, number),
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {
            "driver": DRIVER,
            "nodeName": node.name,
            "pool": {"name": pool_name(node.name), "generation": 1, "resourceSliceCount": count},
            "devices": devices,
        },
    }


def _devices(offer: Offer) -> list[Mapping[str, Any]]:
    snapshot = offer.state.snapshot
    card_of = {device.id: card for card in cards_of(snapshot.devices) for device in card.devices}
    devices: list[Mapping[str, Any]] = []
    for device in snapshot.devices:
        taints = _taints(offer, device.id)
        if (offer.chips is not None and device.id not in offer.chips) or (
            taints and not offer.taints
        ):
            continue
        entry: dict[str, Any] = {
            "name": device_name(device.id),
            "attributes": attributes(device, card_of[device.id], snapshot),
            "capacity": capacity(device),
        }
        if taints:
            entry["taints"] = taints
        devices.append(entry)
    return devices


def _taints(offer: Offer, chip: str) -> list[Mapping[str, str]]:
    status = offer.state.health_statuses.get(chip)
    codes: list[str] = []
    if not offer.state.healthy(chip):
        reasons = () if status is None else status.reasons
        codes = [reason.code for reason in reasons if reason.severity == "unhealthy"]
        codes = codes or ["not-evaluated"]
    taints: list[Mapping[str, str]] = [
        {"key": taint_key(code), "effect": "NoSchedule"} for code in dict.fromkeys(codes)
    ]
    taints += [
        {"key": taint_key(code), "effect": "NoExecute"}
        for code in dict.fromkeys(codes)
        if code in offer.evict
    ]
    if chip in offer.held:
        taints.insert(0, {"key": taint_key(HELD), "effect": "NoSchedule"})
    return taints[:_MAX_TAINTS]
