"""The metric families of each device: `moffett_spu_...`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..devices.inventory import Device
from ..hardware.types import AerCounts, Link, Telemetry
from ..resources.device_ids import DeviceIds
from .library import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from .view import View

#: Seconds after which the last readings of mx-smi are no longer exported: a flat line
#: would look like a measurement.
STALE = 60.0

_MIB = 2**20
Labels = dict[str, str]


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else value * factor


def _part(of: float, value: float | None) -> float | None:
    # Divided: 93.1 times 0.01 would be 0.9309999999999999.
    return None if value is None else value / of


# Readings of mx-smi. The sensors of temperature and power sometimes read 0 for a moment:
# that is not exported.
_READINGS: tuple[tuple[str, str, str, Callable[[Telemetry], float | None]], ...] = (
    ("temperature", "celsius", "Device temperature.", lambda t: t.temperature_celsius or None),
    ("power", "watts", "Device power draw.", lambda t: t.power_draw_watts or None),
    ("power_limit", "watts", "Device power limit.", lambda t: t.power_limit_watts),
    (
        "memory_total", "bytes", "Device memory in total: used, reserved and free.",
        lambda t: _times(_MIB, t.memory_total_mib),
    ),
    (
        "memory_used", "bytes", "Device memory used by programs.",
        lambda t: _times(_MIB, t.memory_used_mib),
    ),
    (
        "memory_reserved", "bytes", "Device memory reserved by the system.",
        lambda t: _times(_MIB, t.memory_reserved_mib),
    ),
    (
        "memory_free", "bytes", "Device memory that is neither used nor reserved.",
        lambda t: _times(_MIB, t.memory_free_mib),
    ),
    (
        "utilization", "ratio", "Utilization of the device, mean over its cores, 0 to 1.",
        lambda t: _part(100, t.utilization_percent),
    ),
    ("frequency", "hertz", "Device clock frequency.", lambda t: _times(1e6, t.frequency_mhz)),
    ("voltage", "volts", "Device core voltage.", lambda t: _part(1000, t.voltage_mv)),
)  # fmt: skip
_LINK: tuple[tuple[str, str, str, Callable[[Link], float | None]], ...] = (
    (
        "pcie_link_speed", "transfers_per_second", "Current speed of the PCIe link, per lane.",
        lambda link: _times(1e9, link.speed),
    ),
    (
        "pcie_link_max_speed", "transfers_per_second", "Maximum speed of the PCIe link, per lane.",
        lambda link: _times(1e9, link.max_speed),
    ),
    ("pcie_link_width", "lanes", "Current width of the PCIe link.", lambda link: link.width),
    (
        "pcie_link_max_width", "lanes", "Maximum width of the PCIe link.",
        lambda link: link.max_width,
    ),
)  # fmt: skip
_Counts = tuple[tuple[str, Callable[[Telemetry], float | None]], ...]
_ECC_VOLATILE: _Counts = (
    ("corrected", lambda t: t.ecc_corrected_volatile),
    ("uncorrected", lambda t: t.ecc_uncorrected_volatile),
)
_ECC_AGGREGATE: _Counts = (
    ("corrected", lambda t: t.ecc_corrected_aggregate),
    ("uncorrected", lambda t: t.ecc_uncorrected_aggregate),
)
_AER: tuple[tuple[str, Callable[[AerCounts], float | None]], ...] = (
    ("correctable", lambda aer: aer.correctable),
    ("nonfatal", lambda aer: aer.nonfatal),
    ("fatal", lambda aer: aer.fatal),
)


def families(view: View) -> Iterator[Metric]:
    """Of every device seen since the start; a device that left the bus has no readings."""
    devices = view.state.snapshot.devices
    labelled = tuple((device, labels_of(device)) for device in devices)
    yield _identities(labelled)
    yield from _health(view, labelled)
    yield from _readings(view, labelled)
    yield from _bus(labelled)
    yield _allocations(view)


def labels_of(device: Device) -> Labels:
    """The labels of every series of a device, in the order of the text formats."""
    return {
        "card": device.card,
        "device": device.id,
        "index": str(device.index),
        "numa_node": "" if device.numa_node is None else str(device.numa_node),
        "pci_bus_id": device.function.bus_id,
        "product": device.product or "",
    }


_Labelled = tuple[tuple[Device, Labels], ...]


def _add(family: Metric, labels: Labels, value: float | None) -> None:
    """Adds one sample, unless the value is None. All series of a device share one labels
    object, so that it is formatted once."""
    if value is not None:
        suffix = "_total" if family.type == "counter" else ""
        family.add_sample(family.name + suffix, labels, value)


def _identities(labelled: _Labelled) -> Metric:
    family = InfoMetricFamily("moffett_spu", "Identity of the device.")
    for device, labels in labelled:
        identity = {
            "uuid": device.uuid,
            "serial": device.serial,
            "board": device.board,
            "firmware_version": device.firmware_version,
            "mcu_version": device.mcu_version,
            "driver": device.function.driver,
        }
        known = {key: value for key, value in identity.items() if value}
        family.add_sample("moffett_spu_info", {**labels, **known}, 1)
    return family


def _health(view: View, labelled: _Labelled) -> Iterator[Metric]:
    healthy = GaugeMetricFamily(
        "moffett_spu_healthy", "1 when the device can be allocated to pods, 0 when it cannot."
    )
    reasons = GaugeMetricFamily(
        "moffett_spu_health_reason",
        "1 for each reason; at level warning the device stays healthy.",
    )
    for device, labels in labelled:
        health_status = view.state.health_statuses.get(device.id)
        _add(healthy, labels, float(health_status is not None and health_status.healthy))
        for reason in () if health_status is None else health_status.reasons:
            # Not `severity`: alerts have a label of that name.
            level = reason.severity.value
            _add(reasons, {**labels, "reason": reason.code, "level": level}, 1)
    yield healthy
    yield reasons


def _readings(view: View, labelled: _Labelled) -> Iterator[Metric]:
    last_good = view.counters.smi_last_good
    if last_good is not None and view.now - last_good > STALE:
        return
    measured = tuple(
        (device.telemetry, labels) for device, labels in labelled if device.telemetry is not None
    )
    for name, unit, documentation, read in _READINGS:
        family = GaugeMetricFamily(f"moffett_spu_{name}", documentation, unit=unit)
        for telemetry, labels in measured:
            _add(family, labels, read(telemetry))
        yield family
    if view.temperature_limit is not None:
        yield GaugeMetricFamily(
            "moffett_spu_temperature_limit_celsius",
            "Configured temperature above which a device is unhealthy.",
            value=view.temperature_limit,
            unit="celsius",
        )
    for name, documentation, counts in (
        ("ecc_errors", "Memory errors since the last start of the device.", _ECC_VOLATILE),
        ("ecc_aggregate_errors", "Memory errors over the life of the device.", _ECC_AGGREGATE),
    ):
        counter = CounterMetricFamily(f"moffett_spu_{name}", documentation)
        for telemetry, labels in measured:
            for kind, count in counts:
                _add(counter, {**labels, "kind": kind}, count(telemetry))
        yield counter


def _bus(labelled: _Labelled) -> Iterator[Metric]:
    present = tuple((d.function, labels) for d, labels in labelled if d.present)
    for name, unit, documentation, read in _LINK:
        family = GaugeMetricFamily(f"moffett_spu_{name}", documentation, unit=unit)
        for function, labels in present:
            _add(family, labels, read(function.link))
        yield family
    counter = CounterMetricFamily(
        "moffett_spu_pcie_aer_errors", "PCIe errors reported since the last start of the device."
    )
    for function, labels in present:
        for kind, count in _AER:
            _add(counter, {**labels, "kind": kind}, count(function.aer))
    yield counter


def _allocations(view: View) -> Metric:
    """One series for each device and container that holds it, whatever the replicas."""
    family = InfoMetricFamily("moffett_spu_allocation", "Container that holds the device.")
    ids = DeviceIds(view.state.snapshot.devices)
    seen: dict[tuple[str, ...], None] = {}
    for resource, allocated in (view.holders or {}).items():
        for advertised_id, holders in allocated.items():
            for device_id in ids.behind(advertised_id):
                for holder in holders:
                    key = (holder.container, device_id, holder.namespace, holder.pod, resource)
                    seen[key] = None
    for device_id, users in ({} if view.dra is None else view.dra.users).items():
        for user, claim in users:
            key = (user.container, device_id, user.namespace, user.pod, f"claim:{claim}")
            seen[key] = None
    names = ("container", "device", "namespace", "pod", "resource")
    for values in seen:
        labels = dict(zip(names, values, strict=True))
        family.add_sample("moffett_spu_allocation_info", labels, 1)
    return family
