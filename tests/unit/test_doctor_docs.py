"""The pages that users look things up in have what they look up."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.cordon import CORDONED
from moffett_device_plugin.devices.health.evaluate import RECOVERING
from moffett_device_plugin.devices.health.flapping import FLAPPING
from moffett_device_plugin.devices.health.rules import RULES
from moffett_device_plugin.doctor.checks import ALL_CHECKS
from moffett_device_plugin.doctor.hardware import REMEDIES

ROOT = Path(__file__).resolve().parents[2]
#: Parts that are not the daemon: what they log, no user sees.
NOT_SERVED = ("fake_kubelet",)


def loud_events() -> dict[str, Path]:
    """Every event that the daemon logs as a warning or an error."""
    found: dict[str, Path] = {}
    source = ROOT / "src/moffett_device_plugin"
    for path in source.rglob("*.py"):
        if path.relative_to(source).parts[0] in NOT_SERVED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Name(id="log"), attr="warning" | "error" | "exception"
                    ),
                    args=[ast.Constant(value=str(event)), *_],
                ):
                    found[event] = path
                case ast.Call(
                    func=ast.Name(id="Line" | "line"),
                    args=[
                        ast.Attribute(attr="WARNING" | "ERROR"),
                        ast.Constant(value=str(event)),
                        *_,
                    ],
                ):
                    found[event] = path
    return found


def test_every_warning_and_error_of_the_log_is_explained() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    events = loud_events()
    assert "device-unhealthy" in events
    assert not [event for event in events if f"`{event}`" not in page]


def test_every_check_is_described() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    described = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert {check.name for check in ALL_CHECKS} == described


def test_every_reason_has_a_remedy() -> None:
    assert {rule.code for rule in RULES} | {RECOVERING, CORDONED, FLAPPING} == set(REMEDIES)


@pytest.mark.parametrize("page", ["doctor.md", "troubleshooting.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / "docs" / target).exists(), target
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in headings, anchor
