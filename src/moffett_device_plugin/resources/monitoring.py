"""A resource whose holder reaches every device and holds none: for exporters and mx-smi. Pure."""

from __future__ import annotations

from collections.abc import Collection

from ..devices.state import NodeState
from .plugin_config import Monitoring
from .pools import AdvertisedDevice, Resource, ResourcePool

#: Before the number of a unit. No device or card has such an id.
UNIT = "monitoring-"


def monitoring_pool(
    state: NodeState, monitoring: Monitoring, taken: Collection[str] = ()
) -> ResourcePool | None:
    """None while no device has a device node: a container keeps the nodes that it started
    with, so it waits until there are some. None, too, where a resource of `taken` has the
    name. Its units are healthy whatever the devices are: sick ones are what is monitored."""
    if monitoring.name in taken:
        return None
    if not any(device.function.nodes for device in state.snapshot.devices):
        return None
    units = (AdvertisedDevice(f"{UNIT}{number}", True) for number in range(monitoring.units))
    return ResourcePool(monitoring.name, Resource(monitoring.name), tuple(units), monitoring=True)
