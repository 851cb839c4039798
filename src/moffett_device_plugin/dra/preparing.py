"""Whether an allocated claim gets its devices on this node now, and with what. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..allocation.allocate_result import environment_of, why_unhealthy
from ..cdi.spec import nodes_there
from ..devices.inventory import Device
from ..devices.state import NodeState
from ..hardware.pci import bus_order
from ..hardware.types import Mount
from .claims import AllocatedClaim, ClaimReference, DeviceResult
from .errors import ClaimRefusedError
from .held import Ledger
from .names import device_name, pool_name, taint_key
from .records import ClaimRecord, PreparedDevice, RequestEdits, make_record


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a decision needs of the node. `chips`: those that are given out through DRA,
    None: all. `inject_sola` is for requests whose parameters do not say; `sola` is where
    the host's SOLA is, None if it has none."""

    node: str
    state: NodeState
    boot_id: str
    ledger: Ledger = field(default_factory=Ledger)
    chips: frozenset[str] | None = None
    inject_sola: bool = False
    sola: Sequence[Mount] | None = None


def prepare(
    claim: AllocatedClaim, facts: NodeFacts, prepared: ClaimRecord | None = None
) -> ClaimRecord:
    """The record that gives the claim its devices. `prepared` is the one that it has.
    Raises ClaimRefusedError.

    The same claim in the same state gets an equal record, however often it is asked for.
    """
    known = {device_name(device.id): device for device in facts.state.snapshot.devices}
    if prepared is not None:
        facts = _with_chips_of(prepared, facts)
    devices: list[PreparedDevice] = []
    taken: set[tuple[str, str | None]] = set()
    for result in claim.results:
        chip = _chip(claim.reference, result, facts, known)
        _check(claim.reference, result, chip, facts)
        place = chip.id, result.share_id
        if place in taken and not result.admin:
            text = f"claim {claim.reference} has device {chip.id} twice; delete the claim"
            raise ClaimRefusedError("device-held", text)
        taken.add(place)
        devices.append(
            PreparedDevice(
                result.request,
                result.pool,
                result.device,
                (chip.id,),
                result.share_id,
                result.admin,
            )
        )
    if prepared is not None and prepared.devices != tuple(devices):
        text = (
            f"claim {claim.reference} was prepared with {_names(prepared)} before it was"
            f" allocated {', '.join(one.device for one in devices)}; it can have these once the"
            " kubelet has unprepared it"
        )
        raise ClaimRefusedError("claim-changed", text)
    by_request = {device.request: None for device in devices}
    edits = {request: _edits(claim, request, devices, facts) for request in by_request}
    return make_record(claim.reference, devices, edits, facts.boot_id)


def check_prepared(record: ClaimRecord, facts: NodeFacts) -> None:
    """Whether a claim that was prepared can go on with what its record says, where the API
    server cannot be asked. Raises ClaimRefusedError."""
    known = {device_name(device.id): device for device in facts.state.snapshot.devices}
    facts = _with_chips_of(record, facts)
    for one in record.devices:
        result = DeviceResult(one.request, one.pool, one.device, one.share_id, one.admin)
        chip = _chip(record.reference, result, facts, known)
        _check(record.reference, result, chip, facts)


def _with_chips_of(prepared: ClaimRecord, facts: NodeFacts) -> NodeFacts:
    """What a claim has it keeps, whatever other claims can have by now."""
    if facts.chips is None:
        return facts
    chips = (chip for device in prepared.devices for chip in device.chips)
    return replace(facts, chips=facts.chips.union(chips))


def _chip(
    reference: ClaimReference, result: DeviceResult, facts: NodeFacts, known: Mapping[str, Device]
) -> Device:
    pool = pool_name(facts.node)
    if result.pool != pool:
        text = (
            f"claim {reference} has device {result.device} of pool {result.pool}, and this"
            f" node's pool is {pool}: it belongs to another node"
        )
        raise ClaimRefusedError("other-node", text)
    chip = known.get(result.device)
    if chip is None:
        text = (
            f"claim {reference} has device {result.device}, which this node does not have;"
            " see `moffett-device-plugin devices`"
        )
        raise ClaimRefusedError("device-unknown", text)
    if facts.chips is not None and chip.id not in facts.chips:
        text = (
            f"claim {reference} has device {chip.id}, which this node gives out through the"
            " device plugin API; delete the pod, so that its claim is allocated anew"
        )
        raise ClaimRefusedError("other-side", text)
    return chip


def _check(reference: ClaimReference, result: DeviceResult, chip: Device, facts: NodeFacts) -> None:
    if not nodes_there(chip):
        state = "it has no device nodes" if chip.present else "it is not on the bus"
        text = (
            f"claim {reference} has device {chip.id}, and {state}; the pod starts when it is back"
        )
        raise ClaimRefusedError("device-gone", text)
    if not result.admin and not _tolerated(result, chip.id, facts.state):
        text = (
            f"claim {reference}: {why_unhealthy(chip.id, facts.state)};"
            " the pod starts when it is healthy"
        )
        raise ClaimRefusedError("device-unhealthy", text)
    if not result.admin:
        holder = facts.ledger.against(reference, chip.id, result.share_id)
        if holder:
            text = (
                f"claim {reference}: device {chip.id} is held by {holder};"
                " the pod starts when that one has ended"
            )
            raise ClaimRefusedError("device-held", text)


def _tolerated(result: DeviceResult, chip: str, state: NodeState) -> bool:
    """Whether it is healthy, or the claim's request tolerates everything that is wrong."""
    if state.healthy(chip):
        return True
    status = state.health_statuses.get(chip)
    codes = [] if status is None else [r.code for r in status.reasons if r.severity == "unhealthy"]
    return bool(codes) and all(
        any(one.covers(taint_key(code), "NoSchedule") for one in result.tolerations)
        for code in codes
    )


def _edits(
    claim: AllocatedClaim, request: str, devices: Sequence[PreparedDevice], facts: NodeFacts
) -> RequestEdits:
    by_id = facts.state.snapshot.by_id()
    chips = {chip for device in devices if device.request == request for chip in device.chips}
    inject = claim.parameters[request].inject_sola
    mounts: Sequence[Mount] | None = ()
    if facts.inject_sola if inject is None else inject:
        mounts = facts.sola
    if mounts is None:
        text = (
            f"claim {claim.reference}, request {request}: injectSola is on and this node has no"
            " /usr/local/sola that the driver can see; install SOLA or turn it off"
        )
        raise ClaimRefusedError("sola-missing", text)
    ordered = sorted((by_id[chip] for chip in chips), key=lambda device: bus_order(device.id))
    return RequestEdits(environment_of(ordered, request), mounts)


def _names(record: ClaimRecord) -> str:
    return ", ".join(device.device for device in record.devices)
