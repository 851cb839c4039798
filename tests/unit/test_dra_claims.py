"""What of a ResourceClaim counts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from moffett_device_plugin.dra.claims import AllocatedClaim, Toleration, parse_claim
from moffett_device_plugin.dra.errors import ClaimRefusedError
from moffett_device_plugin.dra.names import device_name
from tests.support.claims import claim, parameters, reference, result
from tests.support.values import ids_of

A, B, C = ids_of("2xS30")[:3]
TRAIN = reference()


def refused(found: dict[str, Any]) -> ClaimRefusedError:
    with pytest.raises(ClaimRefusedError) as caught:
        parse_claim(found, TRAIN)
    assert "ml/train" in str(caught.value), "a refusal names the claim"
    return caught.value


def parsed(*results: dict[str, Any], **more: Any) -> AllocatedClaim:
    return parse_claim(claim(TRAIN, *results, **more), TRAIN)


def test_only_our_own_results_count() -> None:
    other = {"driver": "gpu.example.com", "request": "gpus", "pool": "p", "device": "gpu-0"}
    found = parsed(other, result(A), result(B, shareID="share-1", adminAccess=True))
    assert [(one.device, one.share_id, one.admin) for one in found.results] == [
        (device_name(A), None, False),
        (device_name(B), "share-1", True),
    ]


def test_a_claim_of_another_driver_alone_is_refused() -> None:
    found = claim(TRAIN, {"driver": "gpu.example.com", "request": "gpus"})
    assert refused(found).code == "not-allocated"


def test_requests_have_no_subrequest() -> None:
    assert parsed(result(A, "spus/card")).results[0].request == "spus"


def test_a_claim_that_was_replaced_is_refused() -> None:
    error = refused(claim(reference(number=2), result(A)))
    assert error.code == "claim-replaced"
    assert TRAIN.uid in str(error)


@pytest.mark.parametrize(
    ("part", "code"), [("allocation", "not-allocated"), ("reservedFor", "not-reserved")]
)
def test_what_the_scheduler_has_to_do_first(part: str, code: str) -> None:
    found = claim(TRAIN, result(A))
    del found["status"][part]
    assert refused(found).code == code


@pytest.mark.parametrize(
    "status", [None, [], "x", {"allocation": []}, {"allocation": {"devices": 3}}]
)
def test_what_is_no_claim_is_refused(status: Any) -> None:
    found = claim(TRAIN, result(A))
    found["status"] = status
    assert refused(found).code in ("not-allocated", "not-reserved")


# -- parameters -----------------------------------------------------------------------


def test_the_claims_parameters_win_over_the_classs() -> None:
    config = [
        parameters("FromClaim", injectSola=True),
        parameters("FromClass", injectSola=False),
    ]
    assert parsed(result(A), config=config).parameters["spus"].inject_sola is True


def test_later_parameters_win_and_those_without_the_field_leave_it() -> None:
    config = [parameters(injectSola=True), parameters(injectSola=False), parameters()]
    assert parsed(result(A), config=config).parameters["spus"].inject_sola is False


def test_parameters_are_of_the_requests_that_they_name() -> None:
    config = [
        parameters(requests=["b"], injectSola=True),
        parameters(requests=["a/first"], injectSola=False),
    ]
    found = parsed(result(A, "a/first"), result(B, "b/second"), result(C, "c"), config=config)
    assert {name: one.inject_sola for name, one in found.parameters.items()} == {
        "a": False,
        "b": True,
        "c": None,
    }


def test_parameters_of_other_drivers_are_not_ours() -> None:
    config = [parameters(driver="gpu.example.com", kind="GpuConfig", sharing="MPS")]
    assert parsed(result(A), config=config).parameters["spus"].inject_sola is None


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "Other"}, "kind"),
        ({"apiVersion": "spu.moffett.ai/v2"}, "apiVersion"),
        ({"injectSola": "yes"}, "injectSola"),
        ({"sola": True}, "sola"),
    ],
)
def test_parameters_that_are_wrong_are_refused_by_their_field(
    values: dict[str, Any], field: str
) -> None:
    error = refused(claim(TRAIN, result(A), config=[parameters(**values)]))
    assert error.code == "parameters"
    assert f"parameters.{field}" in str(error)


# -- tolerations ----------------------------------------------------------------------

KEY, EFFECT = "spu.moffett.ai/too-hot", "NoSchedule"


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"operator": "Exists"}, True),
        ({"key": KEY, "operator": "Exists"}, True),
        ({"key": KEY, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": KEY}, True),
        ({"key": KEY, "value": "other"}, False),
        ({"key": "spu.moffett.ai/bus-gone", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_a_toleration_covers_what_kubernetes_says(toleration: dict[str, str], covers: bool) -> None:
    assert Toleration(**toleration).covers(KEY, EFFECT) is covers
    found = parsed(result(A, tolerations=[toleration])).results[0]
    assert found.tolerations[0].covers(KEY, EFFECT) is covers
