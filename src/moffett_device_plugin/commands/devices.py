"""`devices`: what the node has, as a table for people or JSON for programs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import Any

from ..devices.inventory import Device
from ..devices.monitor import Monitor
from ..devices.state import NodeState
from ..hardware.factory import create_hardware
from ..runtime.log import quiet
from ..settings.settings import Values, hardware_settings, health_policy


def run(values: Values, output: str) -> int:
    hardware, policy = hardware_settings(values), health_policy(values)
    quiet()  # what the daemon would log is what this command prints
    state = asyncio.run(look_once(Monitor(create_hardware(hardware), policy, time.monotonic)))
    if output == "json":
        described = [describe(device, state) for device in state.snapshot.devices]
        print(json.dumps(described, indent=2, ensure_ascii=False))
    else:
        from .devices_table import print_table

        print_table(state)
    return 0


async def look_once(monitor: Monitor) -> NodeState:
    """The node as one look at the bus and one run of mx-smi show it."""
    await monitor.rescan()
    await monitor.ask_smi()
    return monitor.state.value


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
