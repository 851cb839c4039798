"""The node's slices as the API server has them, against those that are wanted. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .pool import Slice


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes the server's slices equal to the wanted ones. `obsolete` are names, to be
    deleted first. `missing`: the server has not all of the slices, or too many."""

    obsolete: tuple[str, ...] = ()
    writes: tuple[Slice, ...] = ()
    missing: bool = False


def changes(wanted: Sequence[Slice], stored: Mapping[str, Slice]) -> Changes:
    """`stored` by name. A reader takes the slices of a pool for complete that have its highest
    generation: while several are written it sees those of before, or none, and never half of
    each."""
    by_name = {name_of(one): one for one in wanted}
    kept = {
        name: one
        for name, one in stored.items()
        if name in by_name and _pool(one).get("name") == _pool(by_name[name]).get("name")
    }
    obsolete = tuple(name for name in stored if name not in kept)
    generations = {_generation(one) for one in kept.values()}
    changed = [one for name, one in by_name.items() if name in kept and not same(one, kept[name])]
    missing = len(kept) < len(by_name)
    generation = max(map(_generation, stored.values()), default=0)
    if missing or len(changed) > 1 or len(generations) > 1:
        generation, changed = generation + 1, list(wanted)
    elif changed:
        (generation,) = generations
    writes = tuple(_complete(one, generation, stored.get(name_of(one), {})) for one in changed)
    return Changes(obsolete, writes, missing or bool(obsolete))


def same(wanted: Slice, stored: Slice) -> bool:
    """Whether the server has what is wanted, apart from what it adds itself and from the
    generation."""
    owners = [owner.get("uid") for owner in _part(stored, "metadata").get("ownerReferences") or ()]
    return (
        _plain(_part(wanted, "spec")) == _plain(_part(stored, "spec"))
        and [owner["uid"] for owner in wanted["metadata"]["ownerReferences"]] == owners
    )


def keeps_taints(sent: Slice, answer: Slice) -> bool:
    """Whether the server kept the taints that it was sent; it drops them without an error
    where their feature gate is off."""
    kept = set(tainted(answer))
    return all(name in kept for name in tainted(sent))


def tainted(slice_: Slice) -> list[str]:
    """The names of its devices that have taints."""
    return [str(one.get("name")) for one in devices_of(slice_) if one.get("taints")]


def devices_of(slice_: Slice) -> Sequence[Mapping[str, Any]]:
    found = _part(slice_, "spec").get("devices")
    return found if isinstance(found, list) else []


def name_of(slice_: Slice) -> str:
    return str(_part(slice_, "metadata").get("name"))


def _complete(wanted: Slice, generation: int, stored: Slice) -> Slice:
    """With the generation, and the times at which the server first saw each taint: without
    them tolerations for a while would begin anew with each change."""
    times = {
        (device.get("name"), taint.get("key"), taint.get("effect")): taint.get("timeAdded")
        for device in devices_of(stored)
        for taint in device.get("taints") or ()
    }
    copy: dict[str, Any] = json.loads(json.dumps(wanted))
    copy["spec"]["pool"]["generation"] = generation
    for device in devices_of(copy):
        for taint in device.get("taints", ()):
            if since := times.get((device["name"], taint["key"], taint["effect"])):
                taint["timeAdded"] = since
    return copy


def _plain(spec: Mapping[str, Any]) -> Any:
    copy = json.loads(json.dumps(spec))
    _part(copy, "pool").pop("generation", None)  # type: ignore[attr-defined]
    for device in copy.get("devices") or ():
        for taint in device.get("taints") or ():
            taint.pop("timeAdded", None)
    if not copy.get("devices"):
        copy.pop("devices", None)
    return copy


def _pool(slice_: Slice) -> Mapping[str, Any]:
    return _part(_part(slice_, "spec"), "pool")


def _generation(slice_: Slice) -> int:
    found = _pool(slice_).get("generation")
    return found if isinstance(found, int) else 0


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
