"""Everything is valid for the releases of Kubernetes that it is for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import programs
from .chart import CHART, ROOT, VALUES, helm, objects, template
from .schemas import RELEASES
from .validate import faults

MANIFESTS = ROOT / "deploy" / "manifests"
OVERLAYS = ROOT / "deploy" / "kustomize" / "overlays"
CURRENT = "1.37.2"
#: The first release that a manifest is for, where it is not 1.22.
SINCE = {
    "plugin-before-1.22.yaml": "1.16.15",
    "plugin-labels-events.yaml": "1.30.0",
    "plugin-telemetry.yaml": "1.30.0",
    "try-it.yaml": "1.20.2",
}
#: The same for values: the chart refuses DRA on releases before its own.
VALUES_SINCE = {"dra": "1.34.0"}


def since(first: str) -> list[str]:
    def number(release: str) -> list[int]:
        return [int(part) for part in release.split(".")]

    return [release for release in RELEASES if number(release) >= number(first)]


@pytest.mark.parametrize("values", VALUES)
def test_the_chart_has_no_faults_that_helm_sees(values: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "-f", VALUES[values])


@pytest.mark.parametrize(
    ("values", "release"),
    [
        (values, release)
        for values in VALUES
        for release in since(VALUES_SINCE.get(values, next(iter(RELEASES))))
    ],
)
def test_the_chart_is_valid_on_every_release(values: str, release: str) -> None:
    assert faults(template(VALUES[values], release), release) == ""


@pytest.mark.parametrize(
    ("path", "release"),
    [
        pytest.param(path, release, id=f"{path.stem}-{release}")
        for path in sorted(MANIFESTS.glob("*.yaml"))
        for release in since(SINCE.get(path.name, "1.22.17"))
    ],
)
def test_a_plain_manifest_is_valid_on_the_releases_it_is_for(path: Path, release: str) -> None:
    assert faults(path.read_text(), release) == ""


def test_the_checker_would_notice() -> None:
    manifest = template({"hostNetwork": False}, CURRENT)
    assert "maxSurge" in faults(manifest, "1.20.2"), "a field that the release does not know"
    assert "minReadySeconds" in faults(
        manifest.replace("minReadySeconds: 2", "minReadySeconds: two"), CURRENT
    )
    assert "could not find schema" in faults("apiVersion: v1\nkind: Something\n", CURRENT)


@pytest.mark.parametrize("overlay", ["kind", "minikube"])
def test_an_overlay_is_the_simulated_chart(overlay: str) -> None:
    built = kustomize(OVERLAYS / overlay)
    assert faults(built, CURRENT) == ""
    daemonset, pod = sorted(objects(built), key=lambda item: str(item["kind"]))
    values = {"simulate": "2xS30", "image": {"pullPolicy": "Never"}}
    text = template(values, CURRENT, release="moffett-device-plugin")
    (wanted,) = objects(text)
    for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
        del wanted["metadata"]["labels"][label]
    # The overlay may tolerate more, and order does not matter to Kubernetes.
    given, asked = (item["spec"]["template"]["spec"] for item in (daemonset, wanted))
    tolerations = given.pop("tolerations")
    assert all(item in tolerations for item in asked.pop("tolerations"))
    assert in_order(daemonset) == in_order(wanted)
    (container,) = pod["spec"]["containers"]
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"]["limits"] == {"moffett.ai/spu": 2}


def test_the_base_is_the_plain_manifest() -> None:
    base = objects(kustomize(ROOT / "deploy" / "kustomize" / "base"))
    assert base == objects((MANIFESTS / "plugin.yaml").read_text())


def kustomize(folder: Path) -> str:
    command: list[str | Path] = [programs.ensure("kustomize"), "build", folder]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def in_order(value: object) -> object:
    """The same with keys and lists in one order."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return sorted((in_order(item) for item in value), key=repr)
    return value
