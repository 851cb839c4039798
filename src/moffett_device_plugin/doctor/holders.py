"""Which pods hold which of this node's devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..devices.inventory import Snapshot
from ..podresources.client import (
    SOCKET,
    ClaimUse,
    Holder,
    Holders,
    PodResourcesError,
    list_holdings,
)
from ..resources.device_ids import DeviceIds
from ..settings.options import OPTIONS, Values


def socket_of(values: Values) -> Path | None:
    """The pod-resources socket that was set, else the one beside the kubelet's plugin
    directory: a kubelet with another --root-dir has both elsewhere. None for not asking."""
    if values.given(OPTIONS["--pod-resources-socket"]).origin != "default":
        path: Path | None = values["--pod-resources-socket"]
        return path
    return Path(values["--kubelet-dir"]).parent / "pod-resources" / SOCKET.name


@dataclass(frozen=True, slots=True)
class Held:
    """Holders as the kubelet lists them, by resource and id of the advertised device, and
    the containers that use devices of claims; `why_not` says in one line why that is not
    known."""

    by_resource: Holders = field(default_factory=dict)
    claims: tuple[ClaimUse, ...] = ()
    why_not: str | None = None

    @property
    def known(self) -> bool:
        return self.why_not is None


def by_device(held: Held, snapshot: Snapshot) -> Mapping[str, tuple[Holder, ...]]:
    """The holders of each device by its id, whatever resource or claim they hold it by."""
    found = DeviceIds(snapshot.devices).holders(held.by_resource)
    if held.claims:
        from ..dra.held import uses_by_chip

        chips = (device.id for device in snapshot.devices)
        for chip, uses in uses_by_chip(held.claims, chips).items():
            who = (*found.get(chip, ()), *(use.holder for use in uses))
            found[chip] = tuple(dict.fromkeys(who))
    return found


def strays(
    held: Held, snapshot: Snapshot, resources: Iterable[str]
) -> Mapping[str, tuple[Holder, ...]]:
    """Ids under these resources that are none of this node's, and who holds them."""
    ids = DeviceIds(snapshot.devices)
    return {
        id: holders
        for resource in resources
        for id, holders in held.by_resource.get(resource, {}).items()
        if not ids.behind(id)
    }


async def ask_holders(socket: Path | None, timeout: float = 2.0) -> Held:
    if socket is None:
        return Held(why_not="podResourcesSocket is none")
    try:
        listed = await list_holdings(socket, timeout)
    except PodResourcesError as error:
        return Held(why_not=str(error))
    return Held(listed.devices, listed.claims)


def named(holders: Iterable[Holder]) -> str:
    """`namespace/pod`, once for each pod, in the kubelet's order."""
    return ", ".join(dict.fromkeys(f"{holder.namespace}/{holder.pod}" for holder in holders))
