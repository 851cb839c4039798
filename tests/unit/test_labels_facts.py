"""From advertised resources to what labels and events say of them."""

from __future__ import annotations

from moffett_device_plugin.labels.compute import ResourceFacts
from moffett_device_plugin.labels.facts import facts_of, holders_by_device
from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.resources.pools import Resource, ResourcePool, Sharing, build_pools
from tests.support.values import ids_of, state_of

IDS = ids_of("2xS30")
ONE, TWO = Holder("default", "one", "main"), Holder("default", "two", "main")


def pools(*resources: Resource) -> tuple[ResourcePool, ...]:
    return build_pools(state_of("2xS30"), resources)[0]


def test_facts_of_a_shared_resource() -> None:
    shared = Resource("moffett.ai/spu.shared", sharing=Sharing(replicas=4))
    assert facts_of(pools(shared)) == (
        ResourceFacts("moffett.ai/spu.shared", "device", 4, shared=True),
    )


def test_who_holds_a_device() -> None:
    held = {"moffett.ai/spu": {IDS[0]: (ONE, TWO)}}  # one of them may be a finished pod
    assert holders_by_device(pools(Resource()), held) == {IDS[0]: (ONE, TWO)}


def test_who_holds_a_card_holds_all_of_its_devices() -> None:
    cards = pools(Resource("moffett.ai/spu-card", granularity="card"))
    held = {"moffett.ai/spu-card": {cards[0].devices[1].id: (ONE,)}}
    assert holders_by_device(cards, held) == dict.fromkeys(IDS[3:], (ONE,))


def test_sharers_are_all_named_once() -> None:
    shared = pools(Resource("moffett.ai/spu.shared", sharing=Sharing(replicas=3)))
    units = [unit.id for unit in shared[0].advertised()][:3]
    held = {"moffett.ai/spu.shared": dict(zip(units, [(ONE,), (TWO,), (ONE,)], strict=True))}
    assert holders_by_device(shared, held) == {IDS[0]: (ONE, TWO)}


def test_a_pod_from_before_the_resource_had_another_name_or_size() -> None:
    cards = pools(Resource("moffett.ai/spu-card", granularity="card"))
    assert holders_by_device(cards, {"moffett.ai/spu": {IDS[4]: (ONE,)}}) == {IDS[4]: (ONE,)}


def test_what_others_hold_of_other_vendors_is_no_concern() -> None:
    held = {"example.com/gpu": {"GPU-1": (ONE,), "0000:01:00.0": (TWO,)}}
    assert holders_by_device(pools(Resource()), held) == {}
