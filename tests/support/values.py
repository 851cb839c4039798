"""Short ways to make snapshots."""

from __future__ import annotations

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus, observe_smi
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import (
    Faults,
    build,
    bus_scan,
    parse_spec,
    smi_report,
)


def snapshot_of(
    spec: str, faults: Faults | None = None, before: Snapshot | None = None
) -> Snapshot:
    """A simulated node as bus and mx-smi show it, one look after `before`."""
    layout, faults = build(parse_spec(spec)), faults or Faults()
    scanned = observe_bus(before or Snapshot(), bus_scan(layout, faults))
    return observe_smi(scanned, smi_report(layout, faults), scanned.scan)


def state_of(spec: str, faults: Faults | None = None) -> NodeState:
    snapshot = snapshot_of(spec, faults)
    return NodeState(
        snapshot, evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses, settled=True
    )


def ids_of(spec: str) -> list[str]:
    return [chip.bus_id for chip in build(parse_spec(spec)).chips]
