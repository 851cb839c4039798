"""Which pods hold which of this node's devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..devices.cards import cards_of
from ..devices.inventory import Snapshot
from ..podresources.client import SOCKET, Holder, Holders, PodResourcesError, list_holders
from ..resources.pools import strip_replica
from ..settings.options import SERVE_OPTIONS, Values

KUBELET_DIR, POD_RESOURCES = (
    next(option for option in SERVE_OPTIONS if option.flag == flag)
    for flag in ("--kubelet-dir", "--pod-resources-socket")
)


def socket_of(values: Values) -> Path:
    """The pod-resources socket that was set, else the one beside the kubelet's plugin
    directory."""
    if values.given(POD_RESOURCES).origin != "default":
        return Path(values[POD_RESOURCES])
    return Path(values[KUBELET_DIR]).parent / "pod-resources" / SOCKET.name


@dataclass(frozen=True, slots=True)
class Held:
    """Holders as the kubelet lists them, by resource and advertised device; `why_not` says in one
    line why that is not known."""

    units: Holders = field(default_factory=dict)
    why_not: str | None = None

    @property
    def known(self) -> bool:
        return self.why_not is None


def by_device(held: Held, snapshot: Snapshot) -> Mapping[str, tuple[Holder, ...]]:
    """The holders of each device by its id: those of its own unit, of its card, and of
    replicas of either. Whatever the resource is called: no other's unit has these ids."""
    devices = {device.id: (device.id,) for device in snapshot.devices}
    cards = {
        card.id: tuple(device.id for device in card.devices) for card in cards_of(snapshot.devices)
    }
    found: dict[str, dict[Holder, None]] = {}
    for units in held.units.values():
        for unit_id, holders in units.items():
            base = strip_replica(unit_id)
            for device_id in devices.get(base) or cards.get(base, ()):
                found.setdefault(device_id, {}).update(dict.fromkeys(holders))
    return {device_id: tuple(holders) for device_id, holders in found.items()}


def strays(
    held: Held, snapshot: Snapshot, resources: Iterable[str]
) -> Mapping[str, tuple[Holder, ...]]:
    """Units of these resources that are none of this node's, and who holds them."""
    known = {device.id for device in snapshot.devices}
    known |= {card.id for card in cards_of(snapshot.devices)}
    return {
        unit_id: holders
        for resource in resources
        for unit_id, holders in held.units.get(resource, {}).items()
        if strip_replica(unit_id) not in known
    }


async def ask_holders(socket: Path, timeout: float = 2.0) -> Held:
    try:
        return Held(await list_holders(socket, timeout))
    except PodResourcesError as error:
        return Held(why_not=str(error))


def named(holders: Iterable[Holder]) -> str:
    """`namespace/pod`, once for each pod, in the kubelet's order."""
    return ", ".join(dict.fromkeys(f"{holder.namespace}/{holder.pod}" for holder in holders))
