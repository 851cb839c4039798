"""The site's copy buttons copy what can be typed, and the first command finds the plugin."""

from __future__ import annotations

import pytest
import yaml

from docs.site.copying import commands, with_copied_text

from .documents import ROOT


@pytest.mark.parametrize(
    ("text", "transcript", "expected"),
    [
        ("a b   # why\n# alone\nc 'd#e'\n", False, "a b\nc 'd#e'"),
        ("$ a\nout\n$ b\nmore\n", True, "a\nb"),
        ("$ a \\\n  --b\nout\n", True, "a \\\n  --b"),
        ("$ a <<'EOF'\nx: 1  # kept\nEOF\nout\n", True, "a <<'EOF'\nx: 1  # kept\nEOF"),
    ],
)
def test_only_commands_are_copied(text: str, transcript: bool, expected: str) -> None:
    assert commands(text, transcript=transcript) == expected


def test_an_output_has_no_copy_button() -> None:
    page = '<div class="language-text highlight"><pre><code>NODE SPU\n</code></pre></div>'
    assert "no-copy" in with_copied_text(page)
    assert "no-copy" not in with_copied_text(page.replace("NODE", "$ kubectl get\nNODE"))


def test_the_first_command_of_troubleshooting_finds_every_daemonset() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    assert "kubectl get pods -A -o wide | grep moffett-device-plugin\n" in text
    names = [
        document["metadata"]["name"]
        for folder in ("manual", "manifests", "kustomize/base")
        for file in (ROOT / "deploy" / folder).glob("*.y*ml")
        for document in yaml.safe_load_all(file.read_text())
        if document and document["kind"] == "DaemonSet"
    ]
    assert len(names) > 5
    assert all("moffett-device-plugin" in name for name in names)
