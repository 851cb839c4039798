"""From advertised resources to what labels say of them."""

from __future__ import annotations

from moffett_device_plugin.labels.compute import ResourceFacts
from moffett_device_plugin.labels.facts import facts_of
from moffett_device_plugin.resources.pools import Resource, ResourcePool, Sharing, build_pools
from tests.support.values import state_of


def pools(*resources: Resource) -> tuple[ResourcePool, ...]:
    return build_pools(state_of("2xS30"), resources)[0]


def test_facts_of_a_shared_resource() -> None:
    shared = Resource("moffett.ai/spu.shared", sharing=Sharing(replicas=4))
    assert facts_of(pools(shared)) == (
        ResourceFacts("moffett.ai/spu.shared", "device", 4, shared=True),
    )
