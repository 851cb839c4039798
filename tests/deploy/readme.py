"""The table of the chart's README, from the comments of `values.yaml`.

A value is described by the comment above it that begins with `# --`; a value without one is
the parent of others, and has no row.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

BEGIN, END = "<!-- values: made of values.yaml -->", "<!-- end of values -->"
_KEY = re.compile(r"^( *)([A-Za-z]\w*):")


@dataclass(frozen=True, slots=True)
class Row:
    """A value: its dotted key, what it is by default, and what it is for."""

    key: str
    default: Any
    description: str


def rows(text: str) -> list[Row]:
    """The described values of a `values.yaml`, in its order. Raises ValueError for a value
    that has neither a description nor described values below it."""
    values = yaml.safe_load(text)
    found: list[Row] = []
    path: list[str] = []
    comment: list[str] = []
    skipped_below: int | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#"):
            if comment:
                comment.append(stripped.removeprefix("#").strip())
        elif key := _KEY.match(line):
            depth = len(key[1]) // 2
            if skipped_below is not None and depth > skipped_below:
                continue
            path[depth:] = [key[2]]
            skipped_below = None
            if comment:
                found.append(Row(".".join(path), _at(values, path), " ".join(comment)))
                comment, skipped_below = [], depth
        else:
            comment = []
    described = {row.key for row in found}
    for leaf in _leaves(values):
        parts = leaf.split(".")
        if not any(".".join(parts[:end]) in described for end in range(1, len(parts) + 1)):
            raise ValueError(f"values.yaml says nothing of {leaf}: put a `# --` comment above it")
    return found


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _leaves(values: Any, prefix: str = "") -> list[str]:
    if not isinstance(values, dict) or not values:
        return [prefix]
    return [
        leaf
        for key, value in values.items()
        for leaf in _leaves(value, f"{prefix}.{key}" if prefix else key)
    ]


def table(of: list[Row], schema: Any) -> str:
    """A table as helm-docs makes it; `schema` is the chart's, which knows the types."""
    lines = ["| Key | Type | Default | Description |", "|---|---|---|---|"]
    for row in of:
        default = json.dumps(row.default, ensure_ascii=False)
        cells = (row.key, _type(row.key, schema), f"`{default}`", row.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _type(key: str, schema: Any) -> str:
    for part in key.split("."):
        schema = schema["properties"][part]
    if "$ref" in schema:
        return "object"
    types = schema.get("type", "string")  # where only a choice is given, it is of texts
    words = [types] if isinstance(types, str) else types
    return " or ".join(word for word in words if word != "null")  # null is any value's default


def with_table(text: str, made: str) -> str:
    """The README with its table brought up to date. Raises ValueError without the marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"
