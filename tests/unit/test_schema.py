"""The schema of a configuration file against the program, on files that nobody wrote."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.settings.load import parse_configuration
from moffett_device_plugin.settings.options import Option, Values
from moffett_device_plugin.settings.schema import schema
from moffett_device_plugin.settings.tree import ROOT, Branch, Items, Node
from tests.unit.test_options import LEGAL

FILE = Path("c.yaml")
VALIDATOR = jsonschema.Draft202012Validator(schema())
HERE = Values(argparse.Namespace(), {}, here=False)

#: What somebody may write where something else is wanted.
other = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1001),
    st.floats(-1, 100, allow_nan=False),
    st.sampled_from(
        ["", " ", "0", "5", "5s", "none", "off", "yes", "/dev/x", "a.io/b", "S30", "x"]
    ),
)
values = st.one_of(
    other,
    st.lists(other, max_size=2),
    st.dictionaries(st.sampled_from(["a", "over-temperature", "aer-fatal"]), other, max_size=2),
)


def of(node: Node) -> st.SearchStrategy[Any]:
    match node:
        case Branch(keys=keys):
            return st.one_of(
                st.lists(st.sampled_from(sorted(keys)), max_size=3, unique=True).flatmap(
                    lambda some: st.fixed_dictionaries({key: of(keys[key]) for key in some})
                ),
                st.none(),
            )
        case Items(each=each):
            return st.lists(of(each), max_size=2)
        case Option(flag=flag):
            legal = [value for value in LEGAL.get(flag, []) if "{tmp}" not in value]
            return st.one_of(st.sampled_from(legal), values) if legal else values
        case _:
            return values


documents = of(ROOT).map(lambda document: {**(document or {}), "version": "v1"})


@settings(max_examples=600, deadline=None)
@given(documents)
def test_the_schema_accepts_what_the_program_accepts(document: dict[str, Any]) -> None:
    try:
        parse_configuration(FILE, json.dumps(document)).check(HERE)
    except ConfigurationError:
        return
    VALIDATOR.validate(document)


@settings(max_examples=600, deadline=None)
@given(documents)
def test_the_form_that_the_schema_accepts_is_one_for_the_program(document: dict[str, Any]) -> None:
    if VALIDATOR.is_valid(document):
        parse_configuration(FILE, json.dumps(document))
