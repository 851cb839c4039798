"""The node's slice: a function of its state. Pure."""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..devices.cards import cards_of
from ..devices.state import NodeState
from .attributes import attributes, capacity
from .names import DRIVER, device_name, pool_name, taint_key

API_VERSION = "resource.k8s.io/v1"
#: The key of the taint of a chip that a pod has through the device plugin API.
HELD = "held"
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
    """What a slice is made from. `held`: chips that pods have through the device plugin
    API. `chips`: those given out through DRA, None: all. `evict`: the codes of reasons that
    end the pods of a chip. `taints`: whether the server keeps them; without, an unhealthy
    chip is left out."""

    state: NodeState
    held: Mapping[str, str] = field(default_factory=dict)
    chips: frozenset[str] | None = None
    evict: frozenset[str] = frozenset()
    taints: bool = True


def slice_name(node: str) -> str:
    """Slices are searched in the order of their names."""
    name = f"00000-{DRIVER}-{node}"
    if len(name) <= _LONGEST_NAME:
        return name
    checksum = f"{crc32(node.encode()):08x}"
    return f"{name[: _LONGEST_NAME - len(checksum) - 1].rstrip('-.')}-{checksum}"


def build_slice(offer: Offer, node: Node) -> Slice:
    """The one slice of the node's pool, in bus order: a card's chips are neighbours, and
    the scheduler takes the first that fit. Empty where the node has no chips: the driver is
    there, and has none."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourceSlice",
        "metadata": {
            "name": slice_name(node.name),
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": node.name,
                    "uid": node.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "driver": DRIVER,
            "nodeName": node.name,
            "pool": {"name": pool_name(node.name), "generation": 1, "resourceSliceCount": 1},
            "devices": _devices(offer),
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


# -- compared with what the server has ----------------------------------------------------


def same(wanted: Slice, stored: Slice) -> bool:
    """Whether the server has what is wanted, apart from what it adds itself."""
    owners = [owner.get("uid") for owner in _part(stored, "metadata").get("ownerReferences") or ()]
    return (
        _plain(_part(wanted, "spec")) == _plain(_part(stored, "spec"))
        and [owner["uid"] for owner in wanted["metadata"]["ownerReferences"]] == owners
    )


def keeps_taints(sent: Slice, answer: Slice) -> bool:
    """Whether the server kept the taints that it was sent; it drops them without an error
    where their feature gate is off."""
    tainted = [one["name"] for one in sent["spec"]["devices"] if one.get("taints")]
    kept = {one.get("name") for one in _devices_of(answer) if one.get("taints")}
    return all(name in kept for name in tainted)


def with_times(wanted: Slice, stored: Slice) -> Slice:
    """The slice with the times at which the server first saw each taint: without them
    tolerations for a while would begin anew with each change."""
    times = {
        (device.get("name"), taint.get("key"), taint.get("effect")): taint.get("timeAdded")
        for device in _devices_of(stored)
        for taint in device.get("taints") or ()
    }
    copy: dict[str, Any] = json.loads(json.dumps(wanted))
    for device in copy["spec"]["devices"]:
        for taint in device.get("taints", ()):
            if since := times.get((device["name"], taint["key"], taint["effect"])):
                taint["timeAdded"] = since
    return copy


def _plain(spec: Mapping[str, Any]) -> Any:
    copy = json.loads(json.dumps(spec))
    for device in copy.get("devices") or ():
        for taint in device.get("taints") or ():
            taint.pop("timeAdded", None)
    if not copy.get("devices"):
        copy.pop("devices", None)
    return copy


def _devices_of(slice_: Slice) -> Sequence[Mapping[str, Any]]:
    found = _part(slice_, "spec").get("devices")
    return found if isinstance(found, list) else []


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
