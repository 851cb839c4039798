"""Whatever the API server or a file says, the answer is a claim, a record, or a refusal."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moffett_device_plugin.dra.claims import parse_claim
from moffett_device_plugin.dra.errors import ClaimRefusedError
from moffett_device_plugin.dra.parameters import ParametersError, merged
from moffett_device_plugin.dra.preparing import NodeFacts, prepare
from moffett_device_plugin.dra.records import ClaimRecord, parse_record
from moffett_device_plugin.dra.sweeping import orphaned
from tests.support.apiserver import NODE
from tests.support.claims import claim, reference, result
from tests.support.values import ids_of, state_of

A = ids_of("2xS30")[0]
TRAIN = reference()
FACTS = NodeFacts(NODE, state_of("2xS30"), "boot")
RECORD = prepare(parse_claim(claim(TRAIN, result(A)), TRAIN), FACTS)

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
)
KEYS = st.sampled_from(
    ["metadata", "uid", "status", "allocation", "devices", "results", "config", "requests",
     "request", "driver", "pool", "device", "opaque", "parameters", "reservedFor", "tolerations",
     "shareID", "adminAccess", "annotations", "kind", "spec"]
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)
OBJECTS = st.dictionaries(KEYS, ANYTHING, max_size=5)


def changed(whole: Any, path: list[int], value: Any) -> Any:
    """A copy with the value at some place replaced."""
    if not path or not isinstance(whole, dict | list) or not whole:
        return value
    first, rest = path[0], path[1:]
    if isinstance(whole, list):
        place = first % len(whole)
        return [changed(v, rest, value) if i == place else v for i, v in enumerate(whole)]
    key = sorted(whole)[first % len(whole)]
    return {k: changed(v, rest, value) if k == key else v for k, v in whole.items()}


PATHS = st.lists(st.integers(0, 9), min_size=1, max_size=7)


@given(OBJECTS)
def test_any_object_is_a_claim_or_refused(found: dict[str, Any]) -> None:
    with suppress(ClaimRefusedError):
        parse_claim(found, TRAIN)
    assert isinstance(orphaned(RECORD, found), str)


@given(PATHS, ANYTHING)
def test_a_claim_that_was_tampered_with_is_prepared_or_refused(path: list[int], value: Any) -> None:
    tampered = changed(claim(TRAIN, result(A)), path, value)
    if not isinstance(tampered, dict):
        return
    assert isinstance(orphaned(RECORD, tampered), str)
    with suppress(ClaimRefusedError):
        record = prepare(parse_claim(tampered, TRAIN), FACTS)
        assert isinstance(record, ClaimRecord)
        assert {chip for device in record.devices for chip in device.chips} <= {A}


@given(PATHS, ANYTHING)
def test_a_file_that_was_tampered_with_is_a_record_or_none(path: list[int], value: Any) -> None:
    spec = json.loads(json.dumps(RECORD.spec))
    devices = json.loads(spec["annotations"]["spu.moffett.ai/devices"])
    spec["annotations"]["spu.moffett.ai/devices"] = json.dumps(changed(devices, path, value))
    for text in (json.dumps(spec), json.dumps(changed(RECORD.spec, path, value))):
        with suppress(ValueError):
            assert isinstance(parse_record(text.encode()), ClaimRecord)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_record(text: bytes) -> None:
    with suppress(ValueError):
        parse_record(text)


@given(st.lists(ANYTHING, max_size=3))
def test_any_parameters_are_valid_or_refused(configs: list[Any]) -> None:
    with suppress(ParametersError):
        merged(configs)
