"""The chart, and what helm makes of it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from . import programs

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "moffett-device-plugin"
#: Sets of values, by name: `ci/NAME-values.yaml`, where chart testers look for them.
VALUES = {
    path.name.removesuffix("-values.yaml"): path
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
}
Object = dict[str, Any]


class HelmError(Exception):
    """What helm said."""


def helm(*words: str | Path, stdin: str | None = None) -> str:
    """Raises HelmError."""
    done = subprocess.run(
        [programs.ensure("helm"), *words], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def template(
    values: Mapping[str, Any] | Path | None = None,
    kubernetes: str = "1.34.0",
    *,
    release: str = "spu",
    namespace: str = "kube-system",
    more: Sequence[str | Path] = (),
) -> str:
    """The manifests as text. Raises HelmError."""
    given = yaml.safe_dump(dict(values)) if isinstance(values, Mapping) else None
    file = [] if values is None else ["-f", "-" if given is not None else str(values)]
    words = ["--kube-version", kubernetes, "--namespace", namespace, *file, *more]
    return helm("template", release, CHART, *words, stdin=given)


def objects(text: str) -> list[Object]:
    return [item for item in yaml.safe_load_all(text) if item]


def rendered(values: Mapping[str, Any] | Path | None = None, kubernetes: str = "1.34.0") -> Objects:
    return Objects(objects(template(values, kubernetes)))


COMPONENT = "app.kubernetes.io/component"


def _is_telemetrys(item: Object) -> bool:
    return bool(item["metadata"].get("labels", {}).get(COMPONENT) == "telemetry")


class Objects(list[Object]):
    """Objects that are found by their kind."""

    def kinds(self) -> set[str]:
        return {item["kind"] for item in self}

    def one(self, kind: str) -> Object:
        (found,) = [item for item in self if item["kind"] == kind and not _is_telemetrys(item)]
        return found

    @property
    def telemetry(self) -> Objects:
        """What there is for telemetry alone."""
        made = [deepcopy(item) for item in self if _is_telemetrys(item)]
        for item in made:
            item["metadata"]["labels"].pop(COMPONENT, None)
        return Objects(made)

    @property
    def pod(self) -> Object:
        spec: Object = self.one("DaemonSet")["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Object:
        (container,) = self.pod["containers"]
        found: Object = container
        return found

    @property
    def environment(self) -> dict[str, str]:
        """Those with a value."""
        return {item["name"]: item["value"] for item in self.container["env"] if "value" in item}

    @property
    def mounts(self) -> dict[str, Object]:
        """By path in the container."""
        return {item["mountPath"]: item for item in self.container["volumeMounts"]}

    @property
    def host_paths(self) -> dict[str, bool]:
        """The host's paths, and whether they are mounted read-only."""
        volumes = {item["name"]: item for item in self.pod["volumes"]}
        return {
            volumes[mount["name"]]["hostPath"]["path"]: mount.get("readOnly", False)
            for mount in self.container["volumeMounts"]
            if "hostPath" in volumes[mount["name"]]
        }
