"""Who has which chip, from everything that says so: one ledger for both APIs. Pure.

The scheduler may allocate a chip to two claims, a pod that was deleted by force may still
run, and the device plugin API knows nothing of claims: so this is asked whenever a chip is
given out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..podresources.client import ClaimUse, Holder
from .claims import ClaimReference
from .names import CLAIM_KIND, DRIVER, device_name
from .records import ClaimRecord


@dataclass(frozen=True, slots=True)
class ClaimHolder:
    """A claim that was prepared with a chip. `admin`: it only watches it."""

    reference: ClaimReference
    request: str
    share_id: str | None = None
    admin: bool = False


#: Who was prepared with each chip, by its id.
ClaimHolders = Mapping[str, tuple[ClaimHolder, ...]]


def claim_holders(records: Iterable[ClaimRecord]) -> ClaimHolders:
    """From the records of this boot, of every instance of the driver."""
    found: dict[str, list[ClaimHolder]] = {}
    for record in records:
        for device in record.devices:
            holder = ClaimHolder(record.reference, device.request, device.share_id, device.admin)
            for chip in device.chips:
                found.setdefault(chip, []).append(holder)
    return {chip: tuple(holders) for chip, holders in found.items()}


def claimed(holders: ClaimHolders) -> Mapping[str, str]:
    """The chips that the device plugin API must not give out, with the reason."""
    return {
        chip: f"held by claim {holder.reference} through DRA"
        for chip, who in holders.items()
        for holder in [one for one in who if not one.admin][:1]
    }


@dataclass(frozen=True, slots=True)
class Ledger:
    """`claims` are the records'; `uses` the containers' claims that the kubelet lists;
    `pods` the containers that have chips through the device plugin API; `grants` the
    resources under which chips were allocated in the last seconds. By chip."""

    claims: ClaimHolders = field(default_factory=dict)
    uses: Mapping[str, Sequence[ClaimUse]] = field(default_factory=dict)
    pods: Mapping[str, Sequence[Holder]] = field(default_factory=dict)
    grants: Mapping[str, str] = field(default_factory=dict)

    def against(self, claim: ClaimReference, chip: str, share_id: str | None = None) -> str:
        """Who else has the chip, so that `claim` cannot have it too; empty if nobody.
        Claims that have shares of it can have it together."""
        for holder in self.claims.get(chip, ()):
            both_shares = share_id is not None and holder.share_id is not None
            if holder.reference.uid != claim.uid and not holder.admin and not both_shares:
                return f"claim {holder.reference} (uid {holder.reference.uid}), not unprepared yet"
        recorded = {holder.reference.uid for holder in self.claims.get(chip, ())}
        for use in self.uses.get(chip, ()):
            uid = uid_in(use)
            # One with a record has been looked at; without a uid the name has to do.
            own = uid == claim.uid if uid else (use.namespace, use.name) == _name(claim)
            if not own and uid not in recorded:
                who = f"pod {use.holder.namespace}/{use.holder.pod}"
                return f"claim {use.namespace}/{use.name} of {who}"
        for pod in self.pods.get(chip, ()):
            return f"pod {pod.namespace}/{pod.pod} through the device plugin API"
        if chip in self.grants:
            return f"a pod that was just given it as {self.grants[chip]}"
        return ""


def _name(claim: ClaimReference) -> tuple[str, str]:
    return claim.namespace, claim.name


def uid_in(use: ClaimUse) -> str:
    """The claim's uid, which is in the names of its CDI devices; empty if it is in none."""
    for name in use.cdi_devices:
        kind, _, device = name.partition("=")
        if kind == CLAIM_KIND:
            return device[:36]
    return ""


def uses_by_chip(
    uses: Iterable[ClaimUse], chips: Iterable[str], records: Iterable[ClaimRecord] = ()
) -> Mapping[str, Sequence[ClaimUse]]:
    """The containers' claims by chip, of all `chips` of the node."""
    behind: dict[str, tuple[str, ...]] = {device_name(chip): (chip,) for chip in chips}
    behind |= {device.device: device.chips for record in records for device in record.devices}
    found: dict[str, list[ClaimUse]] = {}
    for use, chip in _chips(uses, behind):
        found.setdefault(chip, []).append(use)
    return found


def _chips(
    uses: Iterable[ClaimUse], behind: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[ClaimUse, str]]:
    for use in uses:
        if use.driver == DRIVER:
            for chip in behind.get(use.device, ()):
                yield use, chip
