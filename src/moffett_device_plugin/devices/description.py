"""A device as JSON has it: the keys that `devices -o json` prints. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .inventory import Device
from .state import NodeState


def describe(device: Device, state: NodeState) -> dict[str, Any]:
    """One device as JSON has it. `device_nodes` are the host's own paths."""
    health_status = state.health_statuses[device.id]
    return {
        "id": device.id,
        "index": device.index,
        "bus_id": device.function.bus_id,
        "card": device.serial,
        "product": device.product,
        "numa_node": device.numa_node,
        "device_nodes": [node.host_path for node in device.function.nodes],
        "driver": device.function.driver,
        "healthy": health_status.healthy,
        "reasons": [
            {"code": r.code, "message": r.message, "severity": r.severity.value}
            for r in health_status.reasons
        ],
        "present": device.present,
        "uuid": device.uuid,
        "board": device.board,
        "cores": device.cores,
        "firmware_version": device.firmware_version,
        "mcu_version": device.mcu_version,
        "control_nodes": [node.host_path for node in state.snapshot.control_nodes],
        "link": asdict(device.function.link),
        "aer": asdict(device.function.aer),
        "telemetry": asdict(device.telemetry) if device.telemetry else None,
        "driver_version": state.snapshot.driver_version,
        "sola_version": state.snapshot.sola_version,
    }
