"""Settings to hardware: a real host root or a simulated node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import Hardware
from .settings import HardwareSettings

if TYPE_CHECKING:
    from .smi_source import SmiSource
    from .sysfs_hardware import SysfsHardware


def create_hardware(settings: HardwareSettings) -> Hardware:
    # Each is imported only where it is used: a real node need not know simulation.
    if settings.simulate:
        from .simulated import SimulatedNode
        from .simulation import build

        return SimulatedNode(build(settings.simulate), settings.simulate_control)
    return real_hardware(settings, _smi_source(settings))


def real_hardware(settings: HardwareSettings, smi_source: SmiSource | None) -> SysfsHardware:
    """`smi_source` is None for a run of mx-smi by this process."""
    from .device_nodes import NodeSettings
    from .sysfs_hardware import SysfsHardware

    return SysfsHardware(
        settings.host_root,
        settings.smi,
        settings.smi_timeout,
        NodeSettings(settings.control_devices, *_device_nodes(settings.device_nodes)),
        virtual_functions=settings.virtual_functions,
        smi_source=smi_source,
    )


def _smi_source(settings: HardwareSettings) -> SmiSource | None:
    if settings.smi_source == "mx-smi":
        return None
    if settings.smi_source == "none":
        from .smi_source import NoSmi

        return NoSmi()
    from .telemetry.client import TelemetryClient

    # A run may be on when the question comes; ours is the next one.
    return TelemetryClient(settings.telemetry_socket, 2 * settings.smi_timeout)


def _device_nodes(globs: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Templates, and what `!` leaves out."""
    ignored = tuple(item[1:] for item in globs if item.startswith("!"))
    return tuple(item for item in globs if not item.startswith("!")), ignored
