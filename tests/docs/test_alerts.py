"""Every alert has a section of docs/alerts.md, and its runbook_url leads there."""

from __future__ import annotations

import yaml

from docs.site.pages import anchors
from tests.support.translations import ROOT

RULES = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text(encoding="utf-8"))
PAGE = "https://runbooks.example/alerts.html#"


def test_every_runbook_url_is_a_section_of_the_page() -> None:
    urls = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in RULES["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert urls == {alert: PAGE + alert.lower() for alert in urls}
    sections = anchors((ROOT / "docs/alerts.md").read_text(encoding="utf-8"))
    assert {url.removeprefix(PAGE) for url in urls.values()} == {
        anchor for anchor in sections if anchor.startswith("spu")
    }
