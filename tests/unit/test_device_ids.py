"""Which SPU devices are behind an id that the kubelet knows, and who holds them."""

from __future__ import annotations

import pytest

from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.resources.device_ids import DeviceIds, replica_id, replica_number
from tests.support.values import ids_of, snapshot_of

A = ids_of("2xS30")[:3]
B = ids_of("2xS30")[3:]
CARD_B = "card-0000:b4:00.0"
ONE, TWO = Holder("default", "one", "main"), Holder("default", "two", "main")
#: Of the node, whatever of it is advertised now, and as what.
DEVICE_IDS = DeviceIds(snapshot_of("2xS30").devices)


@pytest.mark.parametrize(
    ("advertised_id", "device_ids"),
    [
        (A[0], A[:1]),
        (replica_id(A[0], 3), A[:1]),
        (CARD_B, B),
        (replica_id(CARD_B, 0), B),
        ("GPU-1", []),
        ("0000:01:00.0", []),
    ],
)
def test_what_is_behind_an_id(advertised_id: str, device_ids: list[str]) -> None:
    assert list(DEVICE_IDS.behind(advertised_id)) == device_ids


@pytest.mark.parametrize(
    ("advertised_id", "number"),
    [("a::7", 7), ("a", None), ("a::", None), ("a::07", None), ("a::x", None), ("a::\u0661", None)],
)
def test_the_number_of_a_replica(advertised_id: str, number: int | None) -> None:
    assert replica_number(advertised_id) == number


def test_all_holders_of_a_device() -> None:
    held = {"moffett.ai/spu": {A[0]: (ONE, TWO)}}  # one of them may be a finished pod
    assert DEVICE_IDS.holders(held) == {A[0]: (ONE, TWO)}


def test_who_holds_a_card_holds_all_of_its_devices() -> None:
    assert DEVICE_IDS.holders({"moffett.ai/spu-card": {CARD_B: (ONE,)}}) == dict.fromkeys(B, (ONE,))


def test_holders_of_replicas_are_named_once() -> None:
    replicas = [replica_id(A[0], number) for number in range(3)]
    held = {"moffett.ai/spu.shared": dict(zip(replicas, [(ONE,), (TWO,), (ONE,)], strict=True))}
    assert DEVICE_IDS.holders(held) == {A[0]: (ONE, TWO)}


def test_holders_under_several_names_and_of_other_vendors() -> None:
    held = {
        "moffett.ai/spu": {A[1]: (ONE,)},
        "no-longer.configured/card": {CARD_B: (TWO,)},
        "example.com/gpu": {"GPU-1": (ONE,), "0000:01:00.0": (TWO,)},
    }
    assert DEVICE_IDS.holders(held) == {A[1]: (ONE,), **dict.fromkeys(B, (TWO,))}
