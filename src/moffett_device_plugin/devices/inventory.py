"""What the node has: bus and mx-smi joined into one snapshot, over time.

Pure: `observe_bus`, `observe_smi` and `observe_silence` take a snapshot and give
the next. A device that left the bus stays listed. Identity comes from the bus; what
mx-smi adds to it does not change while the device stays on the bus, and is forgotten
when it comes back. Every reading has an age, and is forgotten past it (`expire`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from ..hardware.pci import PRODUCTS, bus_order
from ..hardware.types import BusScan, DeviceNode, PciFunction, SmiDevice, SmiReport, Telemetry

#: Readings that health rests on: one that a run of mx-smi did not give stands until it
#: is too old.
HELD_READINGS = ("temperature_celsius", "ecc_uncorrected_volatile", "ecc_corrected_volatile")
#: Seconds, and runs of mx-smi, after which a reading is unknown: the longer of the two.
MAX_AGE_SECONDS = 600.0
MAX_AGE_RUNS = 10
#: Runs of mx-smi that have to leave out a device which was listed before.
CONFIRMED = 2


@dataclass(frozen=True, slots=True)
class Device:
    """One SPU: what the bus shows, and what mx-smi reports of it.

    `id` is what the kubelet knows it by: its bus ID (docs/decisions/0003-device-id.md).
    `present` is False from the moment it leaves the bus until it is back; its
    other facts are then the last known. `overdue`: a read of its registers has not
    ended. `card_id` is the same for the devices of one card: the bus ID of its switch, or
    what stands for it (`_with_cards`). `listed` is whether mx-smi showed it, in a run that
    began after the device came up; None when that is not known. `missed` is how many
    complete answers in a row did not have it. `came_up` is the scan that first saw this
    incarnation of it. `heard_at` and `read_at` are when mx-smi last had a row for it, and
    each of the HELD_READINGS, in seconds of the monitor's clock. `fatal_at` is when its
    count of fatal PCIe errors was last seen to rise.
    """

    id: str
    index: int
    function: PciFunction
    present: bool = True
    overdue: bool = False
    card_id: str = ""
    card_is_final: bool = False
    serial: str | None = None
    uuid: str | None = None
    product: str | None = None
    board: str | None = None
    cores: int | None = None
    firmware_version: str | None = None
    mcu_version: str | None = None
    telemetry: Telemetry | None = None
    listed: bool | None = None
    missed: int = 0
    came_up: int = 0
    heard_at: float | None = field(default=None, compare=False)
    read_at: Mapping[str, float] = field(default_factory=dict, compare=False)
    fatal_at: float | None = None

    @property
    def card(self) -> str:
        """What people know its card by: the serial number, while it is known."""
        return self.serial or self.card_id

    @property
    def numa_node(self) -> int | None:
        return self.function.numa_node


@dataclass(frozen=True, slots=True)
class SmiState:
    """How mx-smi is: `error` is None while it answers. `runs_failed` in a row.
    `refused` are the fields that it does not know; `notes` is what was wrong where it
    ran."""

    present: bool = False
    answered: bool = False  # at least once since it appeared
    error: str | None = None
    runs_failed: int = 0
    bad_rows: int = 0  # in its last answer
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The node at one moment; `devices` in bus order. `scan` numbers bus scans."""

    devices: tuple[Device, ...] = ()
    control_nodes: tuple[DeviceNode, ...] = ()
    unmatched_nodes: tuple[str, ...] = ()
    virtual_functions: tuple[str, ...] = ()  # left out, by bus ID
    smi: SmiState = SmiState()
    driver_version: str | None = None
    smi_sola_version: str | None = None  # what mx-smi says
    installed_sola_version: str | None = None  # what the installation's path says
    scan: int = 0

    @property
    def sola_version(self) -> str | None:
        return self.smi_sola_version or self.installed_sola_version

    def by_id(self) -> Mapping[str, Device]:
        return {device.id: device for device in self.devices}


# -- what the bus shows ---------------------------------------------------------------


def observe_bus(
    previous: Snapshot,
    scan: BusScan,
    sola_version: str | None = None,
    overdue: frozenset[str] = frozenset(),
    now: float = 0.0,
) -> Snapshot:
    """The snapshot after a look at the bus; `sola_version` is the installation's own,
    `overdue` the devices whose registers are being read for too long, `now` the time in
    seconds of the monitor's clock."""
    number = previous.scan + 1
    known = dict(previous.by_id())
    devices: dict[str, Device] = {}
    for function in scan.functions:
        before = known.pop(function.bus_id, None)
        if before is None:
            device = Device(id=function.bus_id, index=-1, function=function, came_up=number)
        elif before.present and before.function.incarnation == function.incarnation:
            device = replace(before, function=_with_known_registers(before.function, function))
        else:
            device = _new_incarnation(before, function, number)
        same = before is not None and before.came_up == device.came_up
        if (function.aer.fatal or 0) > ((before.function.aer.fatal or 0) if before and same else 0):
            device = replace(device, fatal_at=now)
        devices[device.id] = replace(device, present=True, overdue=device.id in overdue)
    for device in known.values():
        gone = replace(device, present=False, overdue=device.id in overdue)
        devices[device.id] = _without_readings(gone)
    return replace(
        previous,
        devices=_completed(devices.values()),
        control_nodes=scan.control_nodes,
        unmatched_nodes=scan.unmatched_nodes,
        virtual_functions=scan.virtual_functions,
        installed_sola_version=sola_version,
        scan=number,
    )


def observe_overdue(previous: Snapshot, overdue: frozenset[str]) -> Snapshot:
    """The snapshot while the registers of `overdue` are being read for too long."""
    devices = (replace(device, overdue=device.id in overdue) for device in previous.devices)
    return replace(previous, devices=tuple(devices))


def bus_outline(snapshot: Snapshot) -> object:
    """What of the bus the kernel announces by events."""
    return [
        (device.id, device.present, device.function.incarnation, device.function.driver)
        for device in snapshot.devices
    ]


def _with_known_registers(before: PciFunction, now: PciFunction) -> PciFunction:
    """Registers that were not read this time say what they said last."""
    if now.responding is not None:
        return now
    return replace(now, responding=before.responding, link=before.link)


def _new_incarnation(before: Device, function: PciFunction, number: int) -> Device:
    """What came back at a known place. Its kind and its place on a card are the bus's to
    say; for the rest it could be another card."""
    device = Device(id=before.id, index=before.index, function=function, came_up=number)
    kind = function.device_id, function.subsystem_id
    if kind != (before.function.device_id, before.function.subsystem_id):
        return device
    return replace(
        device,
        product=before.product,
        cores=before.cores,
        card_id=before.card_id,
        card_is_final=before.card_is_final,
    )


def _without_readings(device: Device) -> Device:
    return replace(device, telemetry=None, listed=None, missed=0, heard_at=None, read_at={})


# -- what mx-smi reports --------------------------------------------------------------


def observe_smi(
    previous: Snapshot, report: SmiReport, began_at_scan: int, now: float = 0.0
) -> Snapshot:
    """The snapshot after a run of mx-smi that began when scan `began_at_scan` was the
    newest: it says nothing of a device that came up later. An answer of which no row
    matches the bus is no answer."""
    rows = {row.bus_id: row for row in report.devices}
    known = {device.id for device in previous.devices}
    if rows and known and not rows.keys() & known:
        return observe_silence(previous, f"none of its {len(rows)} rows is a device of this node")
    complete = report.complete and rows.keys() <= known
    devices = [
        device
        if not device.present or device.came_up > began_at_scan
        else _with_row(device, rows[device.id], now)
        if device.id in rows
        else _without_row(device, complete=complete)
        for device in previous.devices
    ]
    return replace(
        previous,
        devices=_completed(devices),
        smi=SmiState(True, True, None, 0, report.bad_rows, report.refused, report.notes),
        driver_version=report.driver_version or previous.driver_version,
        smi_sola_version=report.sola_version or previous.smi_sola_version,
    )


def observe_silence(previous: Snapshot, error: str | None) -> Snapshot:
    """The snapshot after mx-smi failed with `error`, or (None) is not there at all."""
    if error is None:
        return replace(previous, smi=SmiState(), smi_sola_version=None)
    smi = replace(previous.smi, present=True, error=error, runs_failed=previous.smi.runs_failed + 1)
    return replace(previous, smi=smi)


def _with_row(device: Device, row: SmiDevice, now: float) -> Device:
    telemetry, read_at = _merged(device, row.telemetry, now)
    return replace(
        device,
        listed=True,
        missed=0,
        index=device.index if row.index is None else row.index,
        # Who it is does not change while it stays on the bus.
        product=device.product or row.product,
        serial=device.serial or row.serial,
        uuid=device.uuid or row.uuid,
        board=device.board or row.board,
        cores=device.cores or row.cores,
        firmware_version=row.firmware_version or device.firmware_version,
        mcu_version=row.mcu_version or device.mcu_version,
        telemetry=telemetry,
        heard_at=now,
        read_at=read_at,
    )


def _without_row(device: Device, *, complete: bool) -> Device:
    """Only an answer that was understood to its end says that a device is not listed,
    and where the device was listed before, only the second such answer."""
    if not complete:
        return device
    missed = device.missed + 1
    if device.listed and missed < CONFIRMED:
        return replace(device, missed=missed)
    return replace(device, listed=False, missed=missed)


def _merged(device: Device, new: Telemetry, now: float) -> tuple[Telemetry, Mapping[str, float]]:
    """The new readings, and of those that health rests on the last real ones. A
    temperature of 0 is a known fault of the sensor for a moment."""
    old = device.telemetry or Telemetry()
    read_at = dict(device.read_at)
    held: dict[str, int | float | None] = {}
    for name in HELD_READINGS:
        value = getattr(new, name)
        if value is None or (name == "temperature_celsius" and value == 0):
            if (last := getattr(old, name)) is not None:
                held[name] = last
        else:
            read_at[name] = now
    return (replace(new, **held) if held else new), read_at  # type: ignore[arg-type]


# -- ages -----------------------------------------------------------------------------


def expire(snapshot: Snapshot, now: float, smi_interval: float) -> tuple[Snapshot, float | None]:
    """The snapshot without the readings that are too old at `now`, and when the next
    one will be."""
    limit = max(MAX_AGE_SECONDS, MAX_AGE_RUNS * smi_interval)
    devices: list[Device] = []
    oldest: list[float] = []
    for device in snapshot.devices:
        left = _still_known(device, now, limit)
        oldest += left.read_at.values()
        oldest += () if left.heard_at is None else (left.heard_at,)
        devices.append(left)
    if any(one is not other for one, other in zip(devices, snapshot.devices, strict=True)):
        snapshot = replace(snapshot, devices=tuple(devices))
    return snapshot, min(oldest) + limit if oldest else None


def _still_known(device: Device, now: float, limit: float) -> Device:
    if device.heard_at is not None and now - device.heard_at >= limit:
        return _without_readings(device)
    old = [name for name, at in device.read_at.items() if now - at >= limit]
    if not old or device.telemetry is None:
        return device
    telemetry = replace(device.telemetry, **dict.fromkeys(old))
    read_at = {name: at for name, at in device.read_at.items() if name not in old}
    return replace(device, telemetry=telemetry, read_at=read_at)


# -- what is derived from all of them -------------------------------------------------


def _completed(devices: Iterable[Device]) -> tuple[Device, ...]:
    """In bus order, with what is derived from all of them: indexes and cards."""
    ordered = sorted(devices, key=lambda device: bus_order(device.id))
    return _with_cards(_with_indexes(ordered))


def _with_indexes(devices: list[Device]) -> list[Device]:
    """mx-smi's own numbers where it gave them. It numbers in bus order, so the others
    get their place in that order, or the lowest number that is free."""
    taken = {device.index for device in devices if device.listed}
    numbered: list[Device] = []
    for place, device in enumerate(devices):
        if device.listed and device.index >= 0:
            numbered.append(device)
            continue
        index = place if place not in taken else next(n for n in count() if n not in taken)
        taken.add(index)
        numbered.append(replace(device, index=index))
    return numbered


def _with_cards(devices: list[Device]) -> tuple[Device, ...]:
    """Devices behind one on-card switch are a card. Those on no such switch are on one
    card when they have one serial number, as far as it is known in time: `freeze_cards`.

    A chip that mx-smi does not list has no serial of its own, but the switch says
    which card it is on; its siblings' serial is then its own.
    """
    serials_of_switch: dict[str, set[str]] = {}
    for device in devices:
        if device.function.switch and device.listed and device.serial:
            serials_of_switch.setdefault(device.function.switch, set()).add(device.serial)
    completed: list[Device] = []
    for device in devices:
        switch = device.function.switch
        serial = device.serial
        if serial is None and switch and len(serials_of_switch.get(switch, ())) == 1:
            (serial,) = serials_of_switch[switch]
        product = device.product or PRODUCTS.get(device.function.device_id)
        known = device.card_id if device.card_is_final else serial or device.id
        completed.append(replace(device, serial=serial, card_id=switch or known, product=product))
    return tuple(completed)


def freeze_cards(snapshot: Snapshot) -> Snapshot:
    """From the first list on, no device moves to another card: not even when its serial
    number arrives after the list."""
    if all(device.card_is_final for device in snapshot.devices):
        return snapshot
    devices = (
        device if device.card_is_final else replace(device, card_is_final=True)
        for device in snapshot.devices
    )
    return replace(snapshot, devices=tuple(devices))
