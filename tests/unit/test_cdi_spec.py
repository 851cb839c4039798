"""What is in a node's spec, and that it is one by CDI's rules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from moffett_device_plugin.cdi.names import IllegalNameError
from moffett_device_plugin.cdi.spec import Spec, Version, build_spec, to_text
from moffett_device_plugin.devices.cards import cards_of
from moffett_device_plugin.devices.inventory import Snapshot
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.hardware.types import DeviceNode, Mount
from tests.support.values import ids_of, snapshot_of

SCHEMA = json.loads((Path(__file__).parent / "cdi_schema.json").read_text())
IDS = ids_of("2xS30")
CONTROL = DeviceNode("/dev/spuctl", "/dev/spuctl")


def spec_of(snapshot: Snapshot, **options: Any) -> dict[str, Any]:
    """The spec as an engine reads it, checked against the rules."""
    spec = build_spec(snapshot, **options)
    assert spec is not None
    read: dict[str, Any] = json.loads(to_text(spec))
    jsonschema.validate(read, SCHEMA)
    names = [device["name"] for device in read["devices"]]
    assert len(names) == len(set(names)), "an engine refuses a file with a name twice"
    return read


def nodes(spec: Spec) -> dict[str, list[str]]:
    """The container paths that each device of the spec gives."""
    return {
        device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]]
        for device in spec["devices"]
    }


def sim(*indexes: int) -> list[str]:
    return [f"/dev/spu-sim{index}" for index in indexes]


def faulty(fault: str, *ids: str) -> Snapshot:
    faults = Faults()
    for device_id in ids:
        faults = faults.with_fault(device_id, fault)
    return snapshot_of("2xS30", faults, before=snapshot_of("2xS30"))


def test_devices_cards_and_all_have_names() -> None:
    assert nodes(spec_of(snapshot_of("2xS30"))) == {
        **{device_id: sim(index) for index, device_id in enumerate(IDS)},
        "card-0000:34:00.0": sim(0, 1, 2),
        "card-0000:b4:00.0": sim(3, 4, 5),
        "all": sim(0, 1, 2, 3, 4, 5),
    }


@pytest.mark.parametrize("node", ["1xS4", "1xS10", "8xS30", "2xS4,1xS30,1xS10", "40xS30"])
def test_every_node_has_a_spec_by_the_rules(node: str) -> None:
    snapshot = snapshot_of(node)
    spec = spec_of(snapshot)
    assert len(spec["devices"]) == len(snapshot.devices) + len(cards_of(snapshot.devices)) + 1


def test_a_node_has_its_paths_and_permissions() -> None:
    spec = spec_of(snapshot_of("1xS4"))
    assert spec["devices"][0]["containerEdits"] == {
        "deviceNodes": [{"path": "/dev/spu-sim0", "hostPath": "/dev/null", "permissions": "rw"}]
    }


def test_the_host_path_is_told_only_when_it_differs() -> None:
    spec = spec_of(replace(snapshot_of("1xS4"), control_nodes=(CONTROL,)))
    assert spec["containerEdits"] == {
        "deviceNodes": [{"path": "/dev/spuctl", "permissions": "rw"}],
    }


def test_what_all_share_is_said_once_for_the_spec() -> None:
    snapshot = replace(snapshot_of("2xS30"), control_nodes=(CONTROL,))
    spec = spec_of(snapshot, mounts=[Mount("/usr/local/sola-3.5.3", "/usr/local/sola")])
    assert not any("/dev/spuctl" in paths for paths in nodes(spec).values())
    (mount,) = spec["containerEdits"]["mounts"]
    assert mount["hostPath"] == "/usr/local/sola-3.5.3"
    assert mount["containerPath"] == "/usr/local/sola"
    assert "ro" in mount["options"]
    assert "bind" in mount["options"]


def test_a_node_that_is_a_devices_own_is_not_given_to_all() -> None:
    own = DeviceNode("/dev/other", "/dev/spu-sim0")
    spec = spec_of(replace(snapshot_of("2xS30"), control_nodes=(own, CONTROL)))
    assert [node["path"] for node in spec["containerEdits"]["deviceNodes"]] == ["/dev/spuctl"]


def test_a_device_that_left_has_no_name() -> None:
    named = nodes(spec_of(faulty("gone", IDS[0])))
    assert IDS[0] not in named
    assert named["card-0000:34:00.0"] == sim(1, 2)
    assert named["all"] == sim(1, 2, 3, 4, 5)


def test_a_card_that_left_has_no_name() -> None:
    assert list(nodes(spec_of(faulty("gone", *IDS[:3])))) == [*IDS[3:], "card-0000:b4:00.0", "all"]


@pytest.mark.parametrize("fault", ["ecc", "hot", "firmware", "config"])
def test_a_sick_device_keeps_its_name(fault: str) -> None:
    assert spec_of(faulty(fault, IDS[0])) == spec_of(snapshot_of("2xS30"))


@pytest.mark.parametrize("fault", ["node", "driver"])
def test_a_device_without_nodes_does_not_spoil_the_spec(fault: str) -> None:
    named = nodes(spec_of(faulty(fault, IDS[0])))
    assert IDS[0] not in named
    assert all(named.values())


def test_a_node_that_is_missing_from_dev_stops_nobody_else() -> None:
    snapshot = snapshot_of("1xS30")
    first, *others = snapshot.devices
    extra = DeviceNode("/dev/spu-extra", "/dev/spu-extra")
    function = replace(
        first.function, nodes=(*first.function.nodes, extra), missing_nodes=("/dev/spu-extra",)
    )
    half = replace(snapshot, devices=(replace(first, function=function), *others))
    assert nodes(spec_of(half)) == nodes(spec_of(snapshot))
    function = replace(function, missing_nodes=("/dev/null", "/dev/spu-extra"))
    none = replace(snapshot, devices=(replace(first, function=function), *others))
    assert first.id not in nodes(spec_of(none))
    assert nodes(spec_of(none))["all"] == sim(1, 2)


@pytest.mark.parametrize("fault", ["gone", "node"])
def test_a_cards_name_outlives_its_first_chip(fault: str) -> None:
    """Without a switch, a card is named after its first chip, there or not."""

    def without_switch(snapshot: Snapshot) -> Snapshot:
        return replace(
            snapshot,
            devices=tuple(
                replace(device, function=replace(device.function, switch=None))
                for device in snapshot.devices
            ),
        )

    named = nodes(spec_of(without_switch(faulty(fault, IDS[0]))))
    assert named[f"card-{IDS[0]}"] == sim(1, 2)


def test_serials_that_contradict_the_switch_do_not_spoil_the_spec() -> None:
    snapshot = snapshot_of("1xS30")
    first, *others = snapshot.devices
    odd = replace(snapshot, devices=(replace(first, card_id="another"), *others))
    assert nodes(spec_of(odd))["card-0000:34:00.0"] == sim(0, 1, 2)


@pytest.mark.parametrize(
    "snapshot", [Snapshot(), faulty("gone", *IDS), faulty("driver", *IDS)], ids=str
)
def test_no_devices_are_no_spec(snapshot: Snapshot) -> None:
    assert build_spec(replace(snapshot, control_nodes=(CONTROL,))) is None


@pytest.mark.parametrize(
    ("kind", "at_least", "version"),
    [
        ("moffett.ai/spu", "0.6.0", "0.6.0"),
        ("moffett.ai/spu", "0.5.0", "0.5.0"),
        ("moffett.ai/spu.shared", "0.5.0", "0.6.0"),  # a dot there came with 0.6.0
    ],
)
def test_the_version_is_the_oldest_that_will_do(kind: str, at_least: Version, version: str) -> None:
    spec = spec_of(snapshot_of("1xS4"), kind=kind, at_least=at_least)
    assert (spec["kind"], spec["cdiVersion"]) == (kind, version)


def test_telemetry_and_health_do_not_change_the_text() -> None:
    texts = {
        to_text(spec_of(snapshot))
        for snapshot in (snapshot_of("2xS30"), faulty("warm", *IDS), faulty("corrected", IDS[2]))
    }
    assert len(texts) == 1


def test_a_kind_that_engines_refuse_is_refused() -> None:
    with pytest.raises(IllegalNameError, match=r"moffett\.ai/spu"):
        build_spec(snapshot_of("1xS4"), kind="spu")


def test_the_rules_refuse_what_engines_refuse() -> None:
    """The schema itself can fail."""
    good = spec_of(snapshot_of("1xS4"))
    jsonschema.validate(good, SCHEMA)
    for wrong in (
        {**good, "devices": []},
        {**good, "kind": "spu"},
        {**good, "cdiVersion": "v6"},
        {**good, "unknown": 1},
        {**good, "devices": [{"name": "a", "containerEdits": {}}]},
        {**good, "devices": [{"name": "a/b", "containerEdits": {"env": ["A=b"]}}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)
