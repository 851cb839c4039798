"""What the scheduler is shown of a node."""

from __future__ import annotations

import json
from typing import Any

from moffett_device_plugin.devices.health.cordon import Cordon
from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.dra.attributes import UNKNOWN_VERSION, version
from moffett_device_plugin.dra.names import device_name
from moffett_device_plugin.dra.pool import Node, Offer, build_slices, slice_name
from moffett_device_plugin.dra.stored import Changes, changes, keeps_taints, name_of, same
from moffett_device_plugin.hardware.simulation import Faults, build, bus_scan, parse_spec
from tests.support.values import ids_of, state_of

IDS = ids_of("2xS30")
A, B = IDS[:2]
NODE = Node("node-1", "node-uid")


def devices(offer: Offer | None = None, **fields: Any) -> dict[str, dict[str, Any]]:
    (made,) = build_slices(offer or Offer(state_of("2xS30"), **fields), NODE)
    return {device["name"]: device for device in made["spec"]["devices"]}


def faulty(fault: str, **fields: Any) -> dict[str, dict[str, Any]]:
    return devices(Offer(state_of("2xS30", Faults().with_fault(A, fault)), **fields))


def taints(device: dict[str, Any]) -> set[tuple[str, str]]:
    return {(taint["key"], taint["effect"]) for taint in device.get("taints", ())}


def test_every_chip_is_there_in_bus_order_with_what_selectors_need() -> None:
    found = devices()
    assert list(found) == [device_name(i) for i in IDS]
    chip = found[device_name(A)]["attributes"]
    assert chip["resource.kubernetes.io/pciBusID"] == {"string": A}
    assert chip["resource.kubernetes.io/pcieRoot"]["string"].startswith("pci0000:")
    assert chip["type"] == {"string": "chip"}
    assert chip["chips"] == {"int": 3}
    assert chip["product"] == {"string": "S30"}
    cards = [one["attributes"]["card"]["string"] for one in found.values()]
    assert cards[0] == cards[1] == cards[2] != cards[3]
    assert found[device_name(A)]["capacity"] == {
        "memory": {"value": "20Gi"},
        "cores": {"value": "4"},
    }


def test_what_is_not_known_is_there_all_the_same() -> None:
    """A selector on an attribute that one chip lacks ends the scheduling of its pod."""
    from moffett_device_plugin.devices.inventory import observe_bus

    bare = observe_bus(Snapshot(), bus_scan(build(parse_spec("2xS30")), Faults()))
    unknown = devices(Offer(NodeState(bare, {}, settled=True)))[device_name(A)]
    known = devices()[device_name(A)]
    standard = {name for name in known["attributes"] if name.startswith("resource.kubernetes.io/")}
    assert known["attributes"].keys() - standard == unknown["attributes"].keys() - standard
    assert unknown["attributes"]["serial"] == {"string": ""}
    assert unknown["attributes"]["driver"] == {"version": UNKNOWN_VERSION}
    assert unknown["capacity"] == {"memory": {"value": "0"}, "cores": {"value": "0"}}


def test_values_are_within_the_servers_limits() -> None:
    for device in devices(Offer(state_of("8xS30"))).values():
        assert len(device["attributes"]) + len(device["capacity"]) <= 32
        for value in device["attributes"].values():
            ((kind, content),) = value.items()
            assert kind == "int" or len(content.encode()) <= 64


def test_versions_are_semver_or_unknown() -> None:
    assert version("3.5.3") == "3.5.3"
    for text in ("3.5", "03.5.1", "v3.5.3", "", None, "3.5.3 " * 20):
        assert version(text) == UNKNOWN_VERSION


def test_an_unhealthy_chip_is_tainted_with_its_reasons_and_the_others_are_not() -> None:
    found = faulty("ecc")
    (reason,) = state_of("2xS30", Faults().with_fault(A, "ecc")).health_statuses[A].reasons
    assert taints(found[device_name(A)]) == {(f"spu.moffett.ai/{reason.code}", "NoSchedule")}
    assert not taints(found[device_name(B)])


def test_pods_are_evicted_for_the_chosen_reasons_only() -> None:
    (reason,) = state_of("2xS30", Faults().with_fault(A, "ecc")).health_statuses[A].reasons
    key = f"spu.moffett.ai/{reason.code}"
    assert taints(faulty("ecc", evict=frozenset({reason.code}))[device_name(A)]) == {
        (key, "NoSchedule"),
        (key, "NoExecute"),
    }
    assert taints(faulty("ecc", evict=frozenset({"bus-gone"}))[device_name(A)]) == {
        (key, "NoSchedule")
    }


def test_a_chip_of_a_device_plugin_pod_is_tainted() -> None:
    found = devices(held={A: "held by pod ml/a through the device plugin API"})
    assert taints(found[device_name(A)]) == {("spu.moffett.ai/held", "NoSchedule")}


def test_where_the_server_drops_taints_an_unhealthy_chip_is_left_out() -> None:
    assert device_name(A) not in faulty("ecc", taints=False)
    assert len(faulty("ecc", taints=False)) == 5


def test_only_the_chips_that_are_given_out_through_dra_are_there() -> None:
    assert list(devices(chips=frozenset({B}))) == [device_name(B)]


def test_a_node_without_chips_has_an_empty_slice() -> None:
    (made,) = build_slices(Offer(NodeState(Snapshot(), {}, settled=True)), NODE)
    assert made["spec"]["devices"] == []
    assert same(made, {**made, "spec": {k: v for k, v in made["spec"].items() if k != "devices"}})


# -- against what the server has --------------------------------------------------------------

SICK = Faults().with_fault(A, "ecc")


def wanted(spec: str = "2xS30", faults: Faults | None = None, node: Node = NODE) -> list[Any]:
    return list(build_slices(Offer(state_of(spec, faults or Faults())), node))


def stored(slices: Any, at: str = "then") -> dict[str, Any]:
    """As a server has what was written to it."""
    found = {name_of(one): json.loads(json.dumps(one)) for one in slices}
    for one in found.values():
        one["metadata"]["resourceVersion"] = "7"
        for device in one["spec"]["devices"]:
            for taint in device.get("taints", ()):
                taint.setdefault("timeAdded", at)
    return found


def generations(made: Changes) -> list[int]:
    return [one["spec"]["pool"]["generation"] for one in made.writes]


def test_what_the_server_adds_is_no_difference_and_all_else_is() -> None:
    (sick,) = wanted(faults=SICK)
    there = stored([sick])
    assert changes([sick], there) == Changes()
    assert keeps_taints(sick, there[name_of(sick)])
    assert changes(wanted(), there).writes
    assert changes(wanted(faults=SICK, node=Node("node-1", "other")), there).writes


def test_a_taint_keeps_its_time_when_another_comes() -> None:
    """A toleration for some seconds counts from there."""
    made = changes(wanted(faults=SICK.with_fault(B, "ecc")), stored(wanted(faults=SICK)))
    times = {
        device["name"]: taint.get("timeAdded")
        for device in made.writes[0]["spec"]["devices"]
        for taint in device.get("taints", ())
    }
    assert times == {device_name(A): "then", device_name(B): None}


def test_no_slice_has_more_devices_than_a_server_takes() -> None:
    """64 as soon as one has a taint; and no device moves to another slice then."""
    made = wanted("30xS30")
    assert [len(one["spec"]["devices"]) for one in made] == [64, 26]
    assert [one["spec"]["pool"]["resourceSliceCount"] for one in made] == [2, 2]
    found = [device["name"] for one in made for device in one["spec"]["devices"]]
    assert found == [device_name(id_) for id_ in ids_of("30xS30")]
    names = [name_of(one) for one in made]
    assert names == sorted(names)


def test_readers_of_several_slices_never_see_some_of_each() -> None:
    """They wait for all slices of the highest generation."""
    first = changes(wanted("30xS30"), {})
    assert generations(first) == [1, 1]
    there = stored(first.writes)
    # One that changes is complete by itself.
    first_sick = ids_of("30xS30")[0]
    one = changes(wanted("30xS30", Faults().with_fault(first_sick, "ecc")), there)
    assert generations(one) == [1]
    assert not one.missing
    # A write of two that failed after the first.
    there[name_of(first.writes[0])]["spec"]["pool"]["generation"] = 2
    assert generations(changes(wanted("30xS30"), there)) == [3, 3]
    # One of two that somebody deleted.
    del there[name_of(first.writes[0])]
    again = changes(wanted("30xS30"), there)
    assert generations(again) == [2, 2]
    assert again.missing
    # Fewer cards: the slice that is left says that it is the only one.
    there = stored(again.writes)
    fewer = changes(wanted("8xS30"), there)
    assert fewer.obsolete == (name_of(first.writes[1]),)
    assert [one["spec"]["pool"]["resourceSliceCount"] for one in fewer.writes] == [1]


def test_a_slice_of_the_name_in_another_pool_is_replaced() -> None:
    """Its pool cannot be changed."""
    there = stored(wanted())
    (name,) = there
    there[name]["spec"]["pool"]["name"] = "other"
    made = changes(wanted(), there)
    assert made.obsolete == (name,)
    assert len(made.writes) == 1


def test_slice_names_are_legal_however_long_the_nodes_is() -> None:
    long = ".".join(["n" * 60] * 5)[:253].rstrip(".")
    assert slice_name("node-1") == "00000-spu.moffett.ai-node-1"
    assert len(slice_name(long)) <= 253
    assert slice_name(long) != slice_name(long[:-1] + "x")


def test_a_cordoned_chip_keeps_new_pods_away_and_evicts_none() -> None:
    state = state_of("2xS30")
    cordons = [Cordon("card-0000:34:00.0", "the command cordon")]
    statuses = evaluate(state.snapshot, {}, HealthPolicy(), 0.0, cordons).health_statuses
    found = devices(Offer(NodeState(state.snapshot, statuses, settled=True)))
    tainted = {("spu.moffett.ai/cordoned", "NoSchedule")}
    assert [taints(found[device_name(i)]) for i in IDS] == [tainted] * 3 + [set()] * 3
