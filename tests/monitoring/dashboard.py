"""The dashboard's queries, as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .prometheus import MONITORING

#: As many panels as are looked at without a scroll; the others are in rows that open.
OPEN = 12

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


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, each row before what is folded into it."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries(dashboard: dict[str, Any]) -> Iterator[Query]:
    """Of panels, variables and annotations."""
    for panel in panels(dashboard):
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
    ids = [panel["id"] for panel in panels(dashboard)]
    if len(set(ids)) != len(ids):
        yield "two panels have the same id"
    shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    if len(shown) > OPEN:
        yield f"{len(shown)} panels are open, more than {OPEN}"
    for panel in panels(dashboard):
        if panel["type"] != "row" and panel["datasource"]["uid"] != "${datasource}":
            yield f"{panel['title']} has a data source of its own"
        references = [target["refId"] for target in panel.get("targets", ())]
        if len(set(references)) != len(references):
            yield f"{panel['title']} has two queries of one name"
    for together in (dashboard["panels"], *(row.get("panels", ()) for row in dashboard["panels"])):
        yield from _overlaps(together)


def _overlaps(together: Sequence[dict[str, Any]]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in together:
        title, grid = panel["title"], panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                if x >= 24 or (x, y) in taken:
                    yield f"{title} lies over {taken.get((x, y), 'the edge')}"
                    return
                taken[x, y] = title
