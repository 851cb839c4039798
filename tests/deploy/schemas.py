"""JSON schemas of Kubernetes' objects, for kubeconform, from Kubernetes' own OpenAPI files.

Those lie in the Go module k8s.io/kubernetes of each release. What kubeconform usually
downloads is made of the same files in the same way: references resolved, unknown keys
refused.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from .programs import cache_folder, go

#: The Kubernetes releases that the chart is checked against, and the hashes of their modules.
RELEASES = {
    "1.10.13": "h1:rYpdir6YNXiHhOOSppokxYcAuwU2nRsh9q5dVb/sor4=",
    "1.16.15": "h1:JNIbOrzvNRcGO07TVvTosW5ubMwc5LfuQdu7cy104Dg=",
    "1.20.2": "h1:EsQROw+yFsDMfjEHp52cKs4JVI6lAHA2SHGAF88cK7s=",
    "1.22.17": "h1:RwbUxcpDoy8LSj/o7Mj4qhF2GPavzony4GkxVlQVNrA=",
    "1.37.2": "h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE=",
}
OPERATOR = ("github.com/prometheus-operator/prometheus-operator", "0.85.0")
OPERATOR_SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
KINDS = {
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "DaemonSet",
    "DeviceClass",
    "NetworkPolicy",
    "Pod",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
#: What says nothing about validity, or says it in another language.
_DROPPED = {"description", "default", "format", "properties", "x-kubernetes-validations"}
Schema = dict[str, Any]
#: Changes when schemas are made in another way.
_FORM = 5


def ensure() -> Path:
    """The folder of schemas: a folder for each release, and `operator`."""
    pins = "-".join(RELEASES)
    folder = cache_folder() / f"kubernetes-schemas-{_FORM}-{pins}-operator-{OPERATOR[1]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        made = work / "schemas"
        for version, pin in RELEASES.items():
            module = _module("k8s.io/kubernetes", version, pin, work)
            _write(of_openapi(module / "api/openapi-spec/swagger.json"), made / version)
        module = _module(*OPERATOR, OPERATOR_SUM, work)
        definitions = module / "example/prometheus-operator-crd"
        _write(of_definitions(definitions), made / "operator")
        made.rename(folder)
    return folder


def _module(path: str, version: str, pin: str, work: Path) -> Path:
    """The unpacked module. Raises ValueError if it is not the one that was pinned."""
    empty = work / "empty"
    empty.mkdir(exist_ok=True)
    # Half a GiB of which a megabyte is kept: not in the user's cache, but with the rest.
    modules = {"GOMODCACHE": str(work / "modules")}
    words = ["mod", "download", "-modcacherw", "-json", f"{path}@v{version}"]
    said = json.loads(go(*words, cwd=empty, more=modules))
    if said["Sum"] != pin:
        raise ValueError(f"{path} {version} is {said['Sum']}, not {pin}")
    return Path(said["Dir"])


def _write(schemas: dict[str, Schema], folder: Path) -> None:
    folder.mkdir(parents=True)
    for kind, schema in schemas.items():
        (folder / f"{kind.lower()}.json").write_text(json.dumps(schema))


def of_openapi(path: Path) -> dict[str, Schema]:
    """The kinds of `KINDS`, by name, from a `swagger.json`."""
    definitions = json.loads(path.read_text())["definitions"]
    found: dict[str, Schema] = {}
    for definition in definitions.values():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            stable = kind["version"] == "v1" and kind["group"] != "extensions"
            if kind["kind"] in KINDS and stable:
                found[kind["kind"]] = _resolved(definition, definitions)
    return found


def of_definitions(folder: Path) -> dict[str, Schema]:
    """Those of the operator's custom resources that the chart has."""
    found: dict[str, Schema] = {}
    for name in ("servicemonitors", "podmonitors", "prometheusrules"):
        text = (folder / f"monitoring.coreos.com_{name}.yaml").read_text()
        spec = yaml.safe_load(text)["spec"]
        schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
        # What metadata is, is the same for all objects, and the definition does not say it.
        found[spec["names"]["kind"]] = _resolved(schema, {}, open_at=("metadata",))
    return found


def _resolved(schema: Any, definitions: dict[str, Schema], open_at: tuple[str, ...] = ()) -> Any:
    """Strict, and without references."""
    if isinstance(schema, list):
        return [_resolved(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref", "").endswith(".Quantity"):
        # The description says string; every API server takes a number as well.
        return {"type": ["string", "number"]}
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {
        key: _resolved(value, definitions) for key, value in schema.items() if key not in _DROPPED
    }
    if "properties" in schema:
        made["properties"] = {
            name: {"type": "object"} if name in open_at else _resolved(value, definitions)
            for name, value in schema["properties"].items()
        }
        made.setdefault("additionalProperties", False)
    return made
