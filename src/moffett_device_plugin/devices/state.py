"""The node's state: what all parts of the daemon read, and none changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .health.cordon import uncordoned
from .health.reasons import HealthStatus
from .inventory import Snapshot


@dataclass(frozen=True, slots=True)
class NodeState:
    """A snapshot and the health of each of its devices, by ID.

    `settled` is False only at the start, until mx-smi has answered or its time is up:
    before that, what only mx-smi knows is missing.
    """

    snapshot: Snapshot = field(default_factory=Snapshot)
    health_statuses: Mapping[str, HealthStatus] = field(default_factory=dict)
    settled: bool = False

    def healthy(self, device_id: str) -> bool:
        health_status = self.health_statuses.get(device_id)
        return health_status is not None and health_status.healthy

    def without_cordons(self) -> NodeState:
        """As if no operator had taken a device out of service."""
        statuses = {i: uncordoned(status) for i, status in self.health_statuses.items()}
        return replace(self, health_statuses=statuses)
