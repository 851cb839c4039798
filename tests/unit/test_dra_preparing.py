"""Which claims get their devices, and what the others are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from moffett_device_plugin.dra.claims import ClaimReference, parse_claim
from moffett_device_plugin.dra.errors import ClaimRefusedError
from moffett_device_plugin.dra.held import (
    ClaimHolder,
    Ledger,
    claim_holders,
    claimed,
    uses_by_chip,
)
from moffett_device_plugin.dra.names import DRIVER, device_name, taint_key
from moffett_device_plugin.dra.preparing import NodeFacts, check_prepared, prepare
from moffett_device_plugin.dra.records import ClaimRecord, parse_record
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.hardware.types import Mount
from moffett_device_plugin.podresources.client import ClaimUse, Holder
from tests.support.apiserver import NODE
from tests.support.claims import claim, parameters, reference, result
from tests.support.values import ids_of, state_of

SCHEMA = json.loads((Path(__file__).parent / "cdi_schema.json").read_text())
IDS = ids_of("2xS30")
A, B, C, D = IDS[:4]
TRAIN, OTHER = reference(), reference("other", 2)
SOLA = (Mount("/usr/local/sola-3.5.0", "/usr/local/sola-3.5.0"),)


def facts(faults: Faults | None = None, **changes: Any) -> NodeFacts:
    values: dict[str, Any] = {"node": NODE, "state": state_of("2xS30", faults), "boot_id": "b"}
    return NodeFacts(**{**values, **changes})


def prepared(
    *results: dict[str, Any],
    node: NodeFacts | None = None,
    who: ClaimReference = TRAIN,
    before: ClaimRecord | None = None,
    **more: Any,
) -> ClaimRecord:
    parsed = parse_claim(claim(who, *results, **more), who)
    return prepare(parsed, node or facts(), before)


def refused(*results: dict[str, Any], **more: Any) -> ClaimRefusedError:
    with pytest.raises(ClaimRefusedError) as caught:
        prepared(*results, **more)
    assert str(more.get("who", TRAIN)) in str(caught.value), "a refusal names the claim"
    return caught.value


def environment(record: ClaimRecord, request: str) -> dict[str, str]:
    (device,) = [d for d in record.spec["devices"] if d["name"].endswith(f"-{request}")]
    return dict(entry.split("=", 1) for entry in device["containerEdits"]["env"])


def held(**entries: Any) -> NodeFacts:
    return facts(ledger=Ledger(**entries))


# -- what a claim gets ----------------------------------------------------------------


def test_a_container_sees_the_devices_of_its_request() -> None:
    record = prepared(result(C, "a"), result(A, "a"), result(D, "b"))
    jsonschema.validate(json.loads(json.dumps(record.spec)), SCHEMA)
    assert environment(record, "a")["MOFFETT_SPU_IDS"] == f"{A},{C}", "in bus order"
    assert environment(record, "a")["MOFFETT_SPU_INDEXES"] == "0,2"
    assert environment(record, "b")["MOFFETT_SPU_IDS"] == D
    # Of a container that uses both, the names with the request's are true.
    assert environment(record, "a")["MOFFETT_SPU_IDS_A"] == f"{A},{C}"


def test_the_first_cdi_name_is_the_devices_own() -> None:
    """By it the kubelet tells which device's health a pod has."""
    record = prepared(result(A, "a"), result(B, "a"), result(D, "b"))
    assert [record.cdi_devices(number) for number in range(3)] == [
        (f"moffett.ai/spu={A}", f"spu.moffett.ai/claim={TRAIN.uid}-a"),
        (f"moffett.ai/spu={B}",),
        (f"moffett.ai/spu={D}", f"spu.moffett.ai/claim={TRAIN.uid}-b"),
    ]


def test_the_spec_is_the_record() -> None:
    record = prepared(result(A, shareID="share-1"), result(B, "watch", adminAccess=True))
    assert parse_record(json.dumps(record.spec).encode()) == record


def test_the_same_claim_is_prepared_the_same_way_again() -> None:
    first = prepared(result(A), result(B))
    ledger = Ledger(claims=claim_holders([first]))
    assert prepared(result(A), result(B), node=facts(ledger=ledger), before=first) == first


# -- holders: never one chip for two ----------------------------------------------------


def test_a_chip_of_another_claim_is_refused_with_its_name() -> None:
    node = held(claims=claim_holders([prepared(result(A), who=OTHER)]))
    error = refused(result(A), node=node)
    assert error.code == "device-held"
    assert A in str(error) and "ml/other" in str(error) and OTHER.uid in str(error)
    assert prepared(result(B), node=node)


def test_a_claim_of_the_same_name_that_is_older_counts() -> None:
    """A pod that was deleted by force may still run when its successor starts."""
    older = reference(number=9)
    node = held(claims=claim_holders([prepared(result(A), who=older)]))
    assert refused(result(A), node=node).code == "device-held"


def test_a_chip_that_a_pod_has_through_the_device_plugin_api_is_refused() -> None:
    error = refused(result(A), node=held(pods={A: (Holder("ml", "old", "main"),)}))
    assert error.code == "device-held"
    assert "ml/old" in str(error)


def test_a_chip_that_was_just_granted_is_refused() -> None:
    error = refused(result(A), node=held(grants={A: "moffett.ai/spu"}))
    assert "moffett.ai/spu" in str(error)


def use(who: ClaimReference, chip: str, *cdi: str) -> ClaimUse:
    pod = Holder("ml", "runs", "main")
    return ClaimUse(pod, who.namespace, who.name, DRIVER, NODE, device_name(chip), cdi)


def test_a_container_that_uses_a_claim_without_a_record_holds_its_chip() -> None:
    """Somebody emptied the directory of the records while it ran."""
    uses = uses_by_chip([use(OTHER, A)], IDS)
    error = refused(result(A), node=held(uses=uses))
    assert "ml/other" in str(error) and "ml/runs" in str(error)
    assert prepared(result(A), node=held(uses=uses), who=OTHER)


def test_a_use_is_of_the_uid_in_its_cdi_names() -> None:
    older = reference(number=9)
    uses = uses_by_chip([use(older, A, f"spu.moffett.ai/claim={older.uid}-spus")], IDS)
    assert refused(result(A), node=held(uses=uses)).code == "device-held"
    own = uses_by_chip([use(TRAIN, A, f"spu.moffett.ai/claim={TRAIN.uid}-spus")], IDS)
    assert prepared(result(A), node=held(uses=own))


def test_uses_of_other_drivers_do_not_count() -> None:
    other = ClaimUse(Holder("ml", "x", "m"), "ml", "x", "gpu.example.com", NODE, device_name(A))
    assert not uses_by_chip([other], IDS)


def test_a_claim_with_one_chip_twice_is_refused() -> None:
    assert refused(result(A, "a"), result(A, "b")).code == "device-held"


def test_two_shares_of_a_chip_go_together_and_a_share_and_the_whole_do_not() -> None:
    node = held(claims=claim_holders([prepared(result(A, shareID="one"), who=OTHER)]))
    assert prepared(result(A, shareID="two"), node=node)
    assert refused(result(A), node=node).code == "device-held"


def test_admin_access_disturbs_nobody_and_is_disturbed_by_nobody() -> None:
    node = held(claims=claim_holders([prepared(result(A), who=OTHER)]))
    admin = prepared(*(result(chip, adminAccess=True) for chip in IDS), node=node)
    assert environment(admin, "spus")["MOFFETT_SPU_IDS"] == ",".join(IDS)
    holders = claim_holders([admin])
    assert prepared(result(A), node=held(claims=holders), who=OTHER)
    assert not claimed(holders), "the device plugin API goes on, too"


def test_the_device_plugin_api_is_told_who_holds_a_chip() -> None:
    holders = claim_holders([prepared(result(A))])
    assert claimed(holders) == {A: "held by claim ml/train through DRA"}
    assert holders[A] == (ClaimHolder(TRAIN, "spus"),)


def test_a_claim_that_was_allocated_anew_waits_for_its_unprepare() -> None:
    error = refused(result(B), before=prepared(result(A)))
    assert error.code == "claim-changed"
    assert device_name(A) in str(error) and device_name(B) in str(error)


# -- forged and stale results -----------------------------------------------------------


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        ({**result(A), "pool": "node-2"}, "other-node"),
        ({**result(A), "device": "gpu-0"}, "device-unknown"),
        ({**result(A), "device": ""}, "device-unknown"),
        ({**result(A), "device": A}, "device-unknown"),
    ],
)
def test_results_that_are_not_this_nodes_are_refused(forged: dict[str, Any], code: str) -> None:
    assert refused(forged).code == code


def test_a_chip_of_the_device_plugins_is_refused() -> None:
    node = facts(chips=frozenset([B]))
    assert refused(result(A), node=node).code == "other-side"
    assert prepared(result(B), node=node)
    before = prepared(result(A))
    assert prepared(result(A), node=node, before=before) == before, "what it has it keeps"


# -- health ---------------------------------------------------------------------------


def faulty(fault: str) -> NodeFacts:
    return facts(Faults().with_fault(A, fault))


def test_an_unhealthy_chip_is_refused_with_its_reasons() -> None:
    error = refused(result(A), node=faulty("ecc"))
    assert error.code == "device-unhealthy"
    assert A in str(error) and "ecc" in str(error)


def test_an_unhealthy_chip_that_the_claim_tolerates_is_given() -> None:
    node = faulty("ecc")
    (reason,) = node.state.health_statuses[A].reasons
    tolerations = [{"key": taint_key(reason.code), "operator": "Exists"}]
    assert prepared(result(A, tolerations=tolerations), node=node)
    other = [{"key": taint_key("bus-gone"), "operator": "Exists"}]
    assert refused(result(A, tolerations=other), node=node).code == "device-unhealthy"


def test_a_chip_that_is_not_there_is_given_to_nobody() -> None:
    """Tolerated or not: a container engine does not know its name."""
    anything = {"tolerations": [{"operator": "Exists"}]}
    assert refused(result(A, **anything), node=_without(A)).code == "device-gone"
    assert refused(result(A, adminAccess=True), node=_without(A)).code == "device-gone"


def _without(chip: str) -> NodeFacts:
    from moffett_device_plugin.devices.health.evaluate import evaluate
    from moffett_device_plugin.devices.health.policy import HealthPolicy
    from moffett_device_plugin.devices.state import NodeState
    from tests.support.values import snapshot_of

    gone = snapshot_of("2xS30", Faults().with_fault(chip, "gone"), before=snapshot_of("2xS30"))
    statuses = evaluate(gone, {}, HealthPolicy(), 0.0).health_statuses
    return facts(state=NodeState(gone, statuses, settled=True))


def test_a_prepared_claim_goes_on_without_the_api_server_while_its_chips_are_well() -> None:
    record = prepared(result(A))
    ledger = Ledger(claims=claim_holders([record]))
    check_prepared(record, facts(ledger=ledger))
    with pytest.raises(ClaimRefusedError):
        check_prepared(record, faulty("ecc"))


# -- SOLA -----------------------------------------------------------------------------


def mounts(record: ClaimRecord) -> list[str]:
    (device,) = record.spec["devices"]
    return [mount["hostPath"] for mount in device["containerEdits"].get("mounts", [])]


def test_sola_is_mounted_as_the_parameters_say_and_else_as_the_node_does() -> None:
    on, off = facts(inject_sola=True, sola=SOLA), facts(sola=SOLA)
    assert mounts(prepared(result(A), node=on)) == ["/usr/local/sola-3.5.0"]
    assert mounts(prepared(result(A), node=off)) == []
    yes, no = [parameters(injectSola=True)], [parameters(injectSola=False)]
    assert mounts(prepared(result(A), node=off, config=yes)) == ["/usr/local/sola-3.5.0"]
    assert mounts(prepared(result(A), node=on, config=no)) == []


def test_a_node_without_sola_refuses_who_wants_it() -> None:
    error = refused(result(A), config=[parameters(injectSola=True)])
    assert error.code == "sola-missing"
