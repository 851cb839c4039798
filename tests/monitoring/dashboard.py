"""The dashboard's queries, as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .prometheus import MONITORING

#: What Grafana puts in their place; `All` for what can be chosen.
VARIABLES = {"$node": ".*", "$card": ".*", "$device": ".*", "$__rate_interval": "30s"}


@dataclass(frozen=True, slots=True)
class Query:
    panel: str
    expression: str
    legend: str


def load() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    return data


def filled_in(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    if "$" in expression:
        raise SystemExit(f"a variable that nobody fills in: {expression}")
    return expression


def queries(dashboard: dict[str, Any]) -> Iterator[Query]:
    """Of panels, variables and annotations."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield Query(panel["title"], filled_in(target["expr"]), target["legendFormat"])
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield Query("annotations", filled_in(annotation["expr"]), "")
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            # label_values(SELECTOR, LABEL) is the values of a label in a selector's series.
            selector, _, label = (
                variable["definition"]
                .removeprefix("label_values(")
                .removesuffix(")")
                .rpartition(", ")
            )
            yield Query(
                f"variable {variable['name']}", f"count by ({label}) ({filled_in(selector)})", ""
            )


def faults(dashboard: dict[str, Any]) -> Iterator[str]:
    """What Grafana would draw wrong or not at all."""
    taken: dict[tuple[int, int], str] = {}
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) != len(ids):
        yield "two panels have the same id"
    for panel in dashboard["panels"]:
        title, grid = panel["title"], panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                if x >= 24 or (x, y) in taken:
                    yield f"{title} lies over {taken.get((x, y), 'the edge')}"
                    return
                taken[x, y] = title
        if panel["type"] != "row" and panel["datasource"]["uid"] != "${datasource}":
            yield f"{title} has a data source of its own"
        references = [target["refId"] for target in panel.get("targets", ())]
        if len(set(references)) != len(references):
            yield f"{title} has two queries of one name"
