"""What the scheduler is shown of a node."""

from __future__ import annotations

from typing import Any

from moffett_device_plugin.devices.inventory import Snapshot
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.dra.attributes import UNKNOWN_VERSION, version
from moffett_device_plugin.dra.names import device_name
from moffett_device_plugin.dra.pool import (
    Node,
    Offer,
    build_slice,
    keeps_taints,
    same,
    slice_name,
    with_times,
)
from moffett_device_plugin.hardware.simulation import Faults, build, bus_scan, parse_spec
from tests.support.values import ids_of, state_of

IDS = ids_of("2xS30")
A, B = IDS[:2]
NODE = Node("node-1", "node-uid")


def devices(offer: Offer | None = None, **changes: Any) -> dict[str, dict[str, Any]]:
    made = build_slice(offer or Offer(state_of("2xS30"), **changes), NODE)
    return {device["name"]: device for device in made["spec"]["devices"]}


def faulty(fault: str, **changes: Any) -> dict[str, dict[str, Any]]:
    return devices(Offer(state_of("2xS30", Faults().with_fault(A, fault)), **changes))


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
    made = build_slice(Offer(NodeState(Snapshot(), {}, settled=True)), NODE)
    assert made["spec"]["devices"] == []
    assert same(made, {**made, "spec": {k: v for k, v in made["spec"].items() if k != "devices"}})


def test_what_the_server_adds_is_no_difference_and_all_else_is() -> None:
    wanted = build_slice(Offer(state_of("2xS30", Faults().with_fault(A, "ecc"))), NODE)
    stored = with_times(wanted, {})
    for device in stored["spec"]["devices"]:
        for taint in device.get("taints", ()):
            taint["timeAdded"] = "2026-01-01T00:00:00Z"
    stored["metadata"]["resourceVersion"] = "7"  # type: ignore[index]
    assert same(wanted, stored)
    assert keeps_taints(wanted, stored)
    assert not same(build_slice(Offer(state_of("2xS30")), NODE), stored)
    assert not same(build_slice(Offer(state_of("2xS30")), Node("node-1", "other")), wanted)


def test_a_taint_keeps_its_time_when_another_comes() -> None:
    """A toleration for some seconds counts from there."""
    one = Faults().with_fault(A, "ecc")
    first = with_times(build_slice(Offer(state_of("2xS30", one)), NODE), {})
    for device in first["spec"]["devices"]:
        for taint in device.get("taints", ()):
            taint["timeAdded"] = "then"
    both = build_slice(Offer(state_of("2xS30", one.with_fault(B, "ecc"))), NODE)
    times = {
        device["name"]: taint.get("timeAdded")
        for device in with_times(both, first)["spec"]["devices"]
        for taint in device.get("taints", ())
    }
    assert times == {device_name(A): "then", device_name(B): None}


def test_slice_names_are_legal_however_long_the_nodes_is() -> None:
    long = ".".join(["n" * 60] * 5)[:253].rstrip(".")
    assert slice_name("node-1") == "00000-spu.moffett.ai-node-1"
    assert len(slice_name(long)) <= 253
    assert slice_name(long) != slice_name(long[:-1] + "x")
