"""What the labels need from the resource pools. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..resources.pools import ResourcePool
from .compute import ResourceFacts


def facts_of(pools: Iterable[ResourcePool]) -> tuple[ResourceFacts, ...]:
    return tuple(
        ResourceFacts(
            pool.name,
            pool.resource.granularity,
            pool.resource.sharing.replicas,
            pool.resource.sharing.shared,
        )
        for pool in pools
    )
