"""The maps of the code: every part of the package has its line, and every line its part."""

from __future__ import annotations

import re
import tomllib

import pytest

from .documents import ROOT

PACKAGE = ROOT / "src/moffett_device_plugin"
MAPS = ("docs/architecture.md", "docs/zh-CN/architecture.md")


def layers() -> list[set[str]]:
    """The order that import-linter checks, from the top."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        (contract,) = (
            contract
            for contract in tomllib.load(file)["tool"]["importlinter"]["contracts"]
            if contract["type"] == "layers"
        )
    return [set(layer.split(" | ")) for layer in contract["layers"]]


@pytest.mark.parametrize("page", MAPS)
def test_every_part_of_the_package_has_a_line_in_the_order_of_the_layers(page: str) -> None:
    lines = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", (ROOT / page).read_text(), re.MULTILINE)
    parts = {
        path.stem
        for path in PACKAGE.iterdir()
        if (any(path.glob("*.py")) or path.suffix == ".py")
        and path.name not in ("__init__.py", "__pycache__", "_build.py")
    }
    assert set(lines) == parts
    rest = list(lines)
    for layer in layers():
        assert set(rest[: len(layer)]) == layer
        del rest[: len(layer)]
    assert rest == []


def test_every_file_of_the_contributors_map_is_there() -> None:
    text = (ROOT / "docs/contributing/index.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([\w/]+(?:/|\.py))`", row)}
    assert len(named) > 20
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    missing = [
        name
        for name in sorted(named)
        if not (PACKAGE / name).exists() and not (ROOT / name).exists() and name not in tests
    ]
    assert missing == []
