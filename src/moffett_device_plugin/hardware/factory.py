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
    from .sysfs_hardware import SysfsHardware

    return SysfsHardware(
        settings.host_root, settings.smi, settings.smi_timeout, settings.control_devices
    )
