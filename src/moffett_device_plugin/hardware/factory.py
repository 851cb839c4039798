"""Settings to hardware: a real host root or a simulated node."""

from __future__ import annotations

from . import Hardware
from .settings import HardwareSettings


def create_hardware(settings: HardwareSettings) -> Hardware:
    # Each is imported only where it is used: a real node need not know simulation.
    if settings.simulate:
        from .simulated import SimulatedNode
        from .simulation import build

        return SimulatedNode(build(settings.simulate), settings.simulate_control)
    from .device_nodes import NodeSettings
    from .sysfs_hardware import SysfsHardware

    return SysfsHardware(
        settings.host_root,
        settings.smi,
        settings.smi_timeout,
        NodeSettings(settings.control_devices, *_device_nodes(settings.device_nodes)),
        virtual_functions=settings.virtual_functions,
    )


def _device_nodes(globs: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Templates, and what `!` leaves out."""
    ignored = tuple(item[1:] for item in globs if item.startswith("!"))
    return tuple(item for item in globs if not item.startswith("!")), ignored
