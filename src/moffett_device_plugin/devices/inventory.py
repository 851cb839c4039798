"""What the node has: bus and mx-smi joined into one snapshot, with a memory.

Pure: `observe_bus`, `observe_smi` and `observe_silence` take a snapshot and give
the next. Nothing is forgotten that is still true: a device that left the bus
stays listed, and an identity that mx-smi told once holds while mx-smi is silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count

from ..hardware.pci import PRODUCTS, bus_order
from ..hardware.types import BusScan, DeviceNode, PciFunction, SmiDevice, SmiReport, Telemetry


@dataclass(frozen=True, slots=True)
class Device:
    """One SPU: what the bus shows, and what mx-smi told of it.

    `id` is what the kubelet knows it by: its bus id (docs/decisions/0003-device-id.md).
    `present` is False from the moment it leaves the bus until it is back; its
    other facts are then the last known. `listed` is whether the last good run of
    mx-smi that began after the device came up showed it; None when there was none.
    `came_up` is the scan that first saw this incarnation of it.
    """

    id: str
    index: int
    function: PciFunction
    present: bool = True
    card: str = ""
    serial: str | None = None
    uuid: str | None = None
    product: str | None = None
    board: str | None = None
    cores: int | None = None
    firmware_version: str | None = None
    mcu_version: str | None = None
    telemetry: Telemetry | None = None
    listed: bool | None = None
    came_up: int = 0

    @property
    def numa_node(self) -> int | None:
        return self.function.numa_node


@dataclass(frozen=True, slots=True)
class SmiState:
    """How mx-smi is: `error` is None while it answers. `runs_failed` in a row."""

    present: bool = False
    answered: bool = False  # at least once since it appeared
    error: str | None = None
    runs_failed: int = 0
    bad_rows: int = 0  # in its last answer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The node at one moment; `devices` in bus order. `scan` numbers bus scans."""

    devices: tuple[Device, ...] = ()
    control_nodes: tuple[DeviceNode, ...] = ()
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


def observe_bus(previous: Snapshot, scan: BusScan, sola_version: str | None = None) -> Snapshot:
    """The snapshot after a look at the bus; `sola_version` is the installation's own."""
    number = previous.scan + 1
    known = dict(previous.by_id())
    devices: dict[str, Device] = {}
    for function in scan.functions:
        device = known.pop(function.bus_id, None)
        if device is None:
            device = Device(id=function.bus_id, index=-1, function=function, came_up=number)
        elif not device.present or device.function.incarnation != function.incarnation:
            # A reboot resets counters and sensors: the old ones say nothing now.
            device = replace(device, telemetry=None, listed=None, came_up=number)
        devices[device.id] = replace(device, function=function, present=True)
    for device in known.values():
        devices[device.id] = replace(device, present=False, telemetry=None, listed=None)
    return replace(
        previous,
        devices=_completed(devices.values()),
        control_nodes=scan.control_nodes or previous.control_nodes,
        installed_sola_version=sola_version,
        scan=number,
    )


def observe_smi(previous: Snapshot, report: SmiReport, began_at_scan: int) -> Snapshot:
    """The snapshot after a good run of mx-smi that began when scan `began_at_scan`
    was the newest: it says nothing of a device that came up later."""
    rows = {row.bus_id: row for row in report.devices}
    devices = [
        _with_row(device, rows.get(device.function.bus_id), began_at_scan)
        for device in previous.devices
    ]
    return replace(
        previous,
        devices=_completed(devices),
        smi=SmiState(present=True, answered=True, bad_rows=report.bad_rows),
        driver_version=report.driver_version or previous.driver_version,
        smi_sola_version=report.sola_version or previous.smi_sola_version,
    )


def observe_silence(previous: Snapshot, error: str | None) -> Snapshot:
    """The snapshot after mx-smi failed with `error`, or (None) is not there at all."""
    if error is None:
        return replace(previous, smi=SmiState(), smi_sola_version=None)
    smi = replace(previous.smi, present=True, error=error, runs_failed=previous.smi.runs_failed + 1)
    return replace(previous, smi=smi)


def _with_row(device: Device, row: SmiDevice | None, began_at_scan: int) -> Device:
    if not device.present or device.came_up > began_at_scan:
        return device
    if row is None:
        return replace(device, listed=False)
    return replace(
        device,
        listed=True,
        index=device.index if row.index is None else row.index,
        product=row.product or device.product,
        serial=row.serial or device.serial,
        uuid=row.uuid or device.uuid,
        board=row.board or device.board,
        cores=row.cores or device.cores,
        firmware_version=row.firmware_version or device.firmware_version,
        mcu_version=row.mcu_version or device.mcu_version,
        telemetry=_merged(device.telemetry, row.telemetry),
    )


def _merged(old: Telemetry | None, new: Telemetry) -> Telemetry:
    """The new readings, but a temperature of 0 or none is a known fault of the
    sensor for a moment: the last real one stands until there is another."""
    if old is not None and not new.temperature_celsius:
        return replace(new, temperature_celsius=old.temperature_celsius)
    return new


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
    """Devices share a card when they share a serial or an on-card switch.

    A chip that mx-smi does not list has no serial of its own, but the switch says
    which card it is on; its siblings' serial is then its own.
    """
    serial_of_switch = {
        device.function.switch: device.serial
        for device in devices
        if device.function.switch is not None and device.serial is not None
    }
    completed: list[Device] = []
    for device in devices:
        switch = device.function.switch
        serial = device.serial or (serial_of_switch.get(switch) if switch else None)
        product = device.product or PRODUCTS.get(device.function.device_id)
        card = serial or switch or device.id
        completed.append(replace(device, serial=serial, card=card, product=product))
    return tuple(completed)
