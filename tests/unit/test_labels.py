"""What the node's labels say, and that they are always legal."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moffett_device_plugin.devices.inventory import Device
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import NODE, Faults
from moffett_device_plugin.hardware.types import Telemetry
from moffett_device_plugin.labels.compute import LABELS, ResourceFacts, labels_of, legal, still_true
from tests.support.values import ids_of, snapshot_of, state_of

LEGAL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
PLAIN = [ResourceFacts("moffett.ai/spu")]


def short(state: NodeState, resources: list[ResourceFacts] | None = None) -> dict[str, str]:
    labels = labels_of(state, PLAIN if resources is None else resources)
    return {name.removeprefix("moffett.ai/spu."): value for name, value in labels.items()}


def changed(state: NodeState, **changes: object) -> NodeState:
    """The same node, with something else true of its first device."""
    first, *others = state.snapshot.devices
    devices = (replace(first, **changes), *others)  # type: ignore[arg-type]
    return replace(state, snapshot=replace(state.snapshot, devices=devices))


def test_a_node_of_two_cards() -> None:
    assert short(state_of("2xS30")) == {
        "present": "true",
        "count": "6",
        "cards": "2",
        "product": "S30",
        "memory": "20480",
        "numa-nodes": "2",
        "driver-version": "3.5.2",
        "sola-version": "3.5.3",
        "firmware-version": "1.0.14",
        "sharing": "none",
    }


def test_a_node_without_devices_has_no_labels() -> None:
    assert labels_of(NodeState(settled=True), PLAIN) == {}


def test_a_sick_device_and_one_that_left_the_bus_still_count() -> None:
    ids = ids_of("2xS30")
    unhealthy = Faults().with_fault(ids[0], "ecc")
    assert short(state_of("2xS30", unhealthy)) == short(state_of("2xS30"))
    gone = snapshot_of("2xS30", Faults().with_fault(ids[0], "gone"), snapshot_of("2xS30"))
    assert short(NodeState(gone, {}, settled=True)) == short(state_of("2xS30"))


def test_different_products_and_firmware_are_all_named_once() -> None:
    state = changed(state_of("1xS4,1xS30"), firmware_version="1.0.13")
    labels = short(state)
    assert labels["product"] == "S30_S4"
    assert labels["firmware-version"] == "1.0.13_1.0.14"


def test_memory_is_what_every_device_has_at_least() -> None:
    smaller = changed(state_of("1xS30"), telemetry=Telemetry(memory_total_mib=16384))
    assert short(smaller)["memory"] == "16384"
    unknown = changed(state_of("1xS30"), telemetry=None)
    assert short(unknown)["memory"] == "20480"


def test_what_is_not_known_is_left_out() -> None:
    bus_only = replace(state_of("1xS4").snapshot, driver_version=None, smi_sola_version=None)
    device = bus_only.devices[0]
    bare = Device(
        id=device.id, index=0, function=replace(device.function, numa_node=None), card_id=device.id
    )
    labels = short(NodeState(replace(bus_only, devices=(bare,)), {}, settled=True))
    assert labels == {"present": "true", "count": "1", "cards": "1", "sharing": "none"}


def test_no_numa_node_is_none() -> None:
    state = state_of("1xS4")
    function = replace(state.snapshot.devices[0].function, numa_node=-1)
    assert "numa-nodes" not in short(changed(state, function=function))


def test_sola_that_is_only_installed_counts() -> None:
    state = state_of("1xS4")
    snapshot = replace(state.snapshot, smi_sola_version=None, installed_sola_version="3.6.0")
    assert short(replace(state, snapshot=snapshot))["sola-version"] == "3.6.0"


def test_an_old_sola_is_shown_for_what_it_is() -> None:
    assert short(state_of("1xS4", Faults().with_fault(NODE, "sola-old")))["sola-version"] == "3.4.2"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([], ("none", None)),
        ([ResourceFacts("moffett.ai/spu-card", "card")], ("none", None)),
        ([ResourceFacts("moffett.ai/spu.shared", replicas=4, shared=True)], ("time-slicing", "4")),
        (
            [*PLAIN, ResourceFacts("moffett.ai/spu.shared", replicas=4, shared=True)],
            ("time-slicing", "4"),
        ),
        (
            [
                ResourceFacts("moffett.ai/a", replicas=4, shared=True),
                ResourceFacts("moffett.ai/b", replicas=8, shared=True),
            ],
            ("time-slicing", None),
        ),
    ],
)
def test_sharing(resources: list[ResourceFacts], expected: tuple[str, str | None]) -> None:
    labels = short(state_of("1xS4"), resources)
    assert (labels["sharing"], labels.get("replicas")) == expected


def test_memory_stays_while_the_only_card_reboots() -> None:
    up = labels_of(state_of("1xS4"), PLAIN)
    rebooting = labels_of(changed(state_of("1xS4"), present=False, telemetry=None), PLAIN)
    assert "moffett.ai/spu.memory" not in rebooting
    assert still_true(up, rebooting) == up
    assert still_true({}, rebooting) == rebooting


def test_memory_of_other_devices_is_not_kept() -> None:
    before = labels_of(state_of("1xS4"), PLAIN)
    after = {k: v for k, v in labels_of(state_of("2xS4"), PLAIN).items() if "memory" not in k}
    assert still_true(before, after) == after
    assert still_true(before, {}) == {}


HOSTILE = [
    ("4X08 (beta)", "4X08-beta"),
    ("-_.", None),
    ("", None),
    ("\n\x00é漢", None),
    ("a" * 62 + "-b", "a" * 62),
    ("3.5.2\nevil.io/label=x", "3.5.2-evil.io-label-x"),
]


@pytest.mark.parametrize(("text", "expected"), HOSTILE)
def test_hostile_text_is_made_legal(text: str, expected: str | None) -> None:
    assert legal(text) == expected


@given(st.lists(st.text(), min_size=3, max_size=3), st.text(), st.text())
def test_labels_are_legal_whatever_the_hardware_says(
    texts: list[str], driver: str, sola: str
) -> None:
    state = state_of("1xS30")
    devices = tuple(
        replace(device, product=text, firmware_version=text)
        for device, text in zip(state.snapshot.devices, texts, strict=True)
    )
    snapshot = replace(
        state.snapshot, devices=devices, driver_version=driver, smi_sola_version=sola
    )
    labels = labels_of(replace(state, snapshot=snapshot), PLAIN)
    assert labels.keys() <= set(LABELS)
    for value in labels.values():
        assert LEGAL_VALUE.fullmatch(value)
        assert len(value) <= 63
