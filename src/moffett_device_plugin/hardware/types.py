"""What the hardware reports of itself, before any rule is applied: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A character device: where it is on the host, and where a container gets it.

    Both are absolute paths as the host and the container see them, whatever the
    plugin's own view of the file system is.
    """

    host_path: str
    container_path: str
    permissions: str = "rw"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or directory of the host's that a container gets read-only."""

    host_path: str
    container_path: str


@dataclass(frozen=True, slots=True)
class Link:
    """A PCIe link: speeds in GT/s, widths in lanes; None where not known. The maxima
    are what both of its ends can do."""

    speed: float | None = None
    max_speed: float | None = None
    width: int | None = None
    max_width: int | None = None


@dataclass(frozen=True, slots=True)
class AerCounts:
    """PCIe advanced error reporting: errors since the function was enumerated."""

    correctable: int | None = None
    nonfatal: int | None = None
    fatal: int | None = None


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One SPU on the bus, as sysfs shows it.

    `ancestors` are the names from the host bridge down to the function's parent,
    e.g. `("pci0000:34", "0000:34:01.0", "0000:35:00.0", "0000:36:04.0")`.
    `switch` is the upstream port of the on-card switch, None where the function
    is on no such switch. `incarnation` differs after the function left the bus
    and came back. `responding` is False when configuration space reads all ones, None
    when it was not read: the function sleeps, or a read of it has not ended.
    """

    bus_id: str
    ancestors: tuple[str, ...]
    device_id: int
    subsystem_id: int | None
    driver: str | None
    numa_node: int | None
    nodes: tuple[DeviceNode, ...]
    missing_nodes: tuple[str, ...] = ()  # listed by sysfs, absent from the host's /dev
    responding: bool | None = True
    link: Link = Link()
    aer: AerCounts = AerCounts()
    switch: str | None = None
    incarnation: int = 0


@dataclass(frozen=True, slots=True)
class BusScan:
    """The SPU functions in bus order, and the nodes that all of them share.

    `unmatched_nodes` are paths of nodes that belong to single devices, with nothing that
    says to which. `virtual_functions` are those that were left out, by bus ID.
    `registers` is what `Hardware.registers` returns while nothing has changed.
    """

    functions: tuple[PciFunction, ...] = ()
    control_nodes: tuple[DeviceNode, ...] = ()
    unmatched_nodes: tuple[str, ...] = ()
    virtual_functions: tuple[str, ...] = ()
    registers: object = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What mx-smi measures; None where it gave nothing, or nothing that can be read."""

    memory_total_mib: int | None = None
    memory_reserved_mib: int | None = None
    memory_used_mib: int | None = None
    memory_free_mib: int | None = None
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_draw_watts: float | None = None
    power_limit_watts: float | None = None
    frequency_mhz: float | None = None
    voltage_mv: float | None = None
    ecc_corrected_volatile: int | None = None
    ecc_uncorrected_volatile: int | None = None
    ecc_corrected_aggregate: int | None = None
    ecc_uncorrected_aggregate: int | None = None


@dataclass(frozen=True, slots=True)
class SmiDevice:
    """One row of mx-smi: a device's identity and telemetry, found by its bus id."""

    bus_id: str  # in sysfs form
    index: int | None = None
    product: str | None = None
    serial: str | None = None
    uuid: str | None = None
    board: str | None = None
    cores: int | None = None
    firmware_version: str | None = None
    mcu_version: str | None = None
    telemetry: Telemetry = Telemetry()


@dataclass(frozen=True, slots=True)
class SmiReport:
    """One good run of mx-smi.

    `bad_rows` is how many rows could not be read, or not whole. `complete` is whether a
    device that has no row is known to have none. `refused` are the fields that this
    mx-smi does not know. `age` is the time in seconds since the run began, where that was
    in another process; `notes` is what was wrong there, in a line each.
    """

    devices: tuple[SmiDevice, ...] = ()
    driver_version: str | None = None
    sola_version: str | None = None
    bad_rows: int = 0
    complete: bool = True
    refused: tuple[str, ...] = ()
    age: float = 0.0
    notes: tuple[str, ...] = ()
