"""What is made of something else is up to date."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from moffett_device_plugin import __version__

from . import generate, readme
from .chart import CHART, ROOT


def test_every_generated_file_is_up_to_date() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generate.files().items()
        if not path.exists() or path.read_text() != text
    ]
    assert not stale, "run tests/deploy/run --write"


def test_no_manifest_is_left_that_nothing_makes() -> None:
    made = {path.name for path in generate.files()}
    assert {path.name for path in (ROOT / "deploy" / "manifests").iterdir()} <= made | {"README.md"}


def test_the_schema_knows_exactly_the_values() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert keys_of_schema(schema) == keys_of(values)


def keys_of(values: dict[str, Any], prefix: str = "") -> set[str]:
    """The described values, by dotted key, and those above them."""
    rows = {row.key for row in readme.rows((CHART / "values.yaml").read_text())}
    found = set()
    for key, value in values.items():
        name = f"{prefix}{key}"
        found.add(name)
        if isinstance(value, dict) and name not in rows:
            found |= keys_of(value, f"{name}.")
    return found


def keys_of_schema(schema: dict[str, Any], prefix: str = "") -> set[str]:
    rows = {row.key for row in readme.rows((CHART / "values.yaml").read_text())}
    found = set()
    for key, value in schema["properties"].items():
        name = f"{prefix}{key}"
        found.add(name)
        if "properties" in value and name not in rows:
            assert value.get("additionalProperties") is False or name == "global", name
            found |= keys_of_schema(value, f"{name}.")
    return found


def test_every_setting_of_the_file_can_be_given_inline() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    file = json.loads((ROOT / "docs" / "config.schema.json").read_text())
    settings = settings_of(file)
    assert settings_of(schema["$defs"]["configuration"]) == settings
    assert "nodes.resources.select.serial" in settings


def settings_of(schema: Any, prefix: str = "") -> set[str]:
    """The dotted name of each setting that a schema describes, at any depth."""
    if isinstance(schema, list):
        return set().union(*(settings_of(each, prefix) for each in schema))
    if not isinstance(schema, dict):
        return set()
    found = set()
    for key, value in schema.items():
        if key == "properties":
            for name, described in value.items():
                found |= {prefix + name} | settings_of(described, f"{prefix}{name}.")
        else:
            found |= settings_of(value, prefix)
    return found


def test_the_chart_is_of_the_plugins_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["appVersion"], chart["version"]) == (f"v{__version__}", __version__)


def test_a_value_that_nobody_describes_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"says nothing of b\.d"):
        readme.rows("# -- one\na: 1\nb:\n  # -- two\n  c: 2\n  d: 3\n")


def test_a_description_of_several_lines_is_one_cell() -> None:
    (row,) = readme.rows("# What follows:\n\n# -- first `x`,\n# second\na: []\n")
    assert row == readme.Row("a", [], "first `x`, second")


def test_plain_manifests_say_nothing_of_helm() -> None:
    for path in (ROOT / "deploy" / "manifests").glob("*.yaml"):
        assert "helm" not in path.read_text().lower(), path.name
