"""The files that are made of others, so that no two can say different things.

| file | made of |
|---|---|
| `deploy/manifests/*.yaml` | the chart, by helm |
| `deploy/kustomize/base/plugin.yaml` | the same |
| the chart's `README.md`, its table | the comments of `values.yaml` |
| the chart's `values.schema.json`, `$defs.configuration` | `docs/config.schema.json` |
| the chart's `templates/_defaults.tpl` | `values.yaml` |
| the chart's `files/` | `deploy/monitoring/` |
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moffett_device_plugin.devices.health.rules import RULES

from . import readme
from .chart import CHART, ROOT, template

DEPLOY = ROOT / "deploy"
RELEASE = "moffett-device-plugin"
#: `maxSurge` and everything else that the chart has for current releases.
CURRENT = "1.37.2"
#: The first release whose kubelet tells who holds what; a later chart's fields are absent.
OLD = "1.15.0"

_HEADER = """\
# {title}
#
# Made of the chart by tests/deploy/run --write: change the chart, not this file.
"""
#: What only helm's own objects should say.
_HELM_LINES = re.compile(
    r"^ *(# Source: .*|helm\.sh/chart: .*|app\.kubernetes\.io/managed-by: .*)\n", re.MULTILINE
)


def files() -> dict[Path, str]:
    """What every generated file has to be. Raises HelmError."""
    schema = CHART / "values.schema.json"
    text = (CHART / "README.md").read_text()
    values = (CHART / "values.yaml").read_text()
    made = {schema: with_configuration(schema.read_text())}
    made[CHART / "templates" / "_defaults.tpl"] = defaults(values)
    table = readme.table(readme.rows(values), json.loads(made[schema]))
    made[CHART / "README.md"] = readme.with_table(text, table)
    for name in ("grafana-dashboard.json", "rules.yaml"):
        made[CHART / "files" / name] = (DEPLOY / "monitoring" / name).read_text()
    folder = DEPLOY / "manifests"
    plugin = manifest("The plugin, without privileges: Kubernetes 1.22 and later.", {})
    made[folder / "plugin.yaml"] = plugin
    made[DEPLOY / "kustomize" / "base" / "plugin.yaml"] = plugin
    made[folder / "plugin-before-1.22.yaml"] = manifest(
        "The plugin, without privileges: Kubernetes 1.15 to 1.21.", {}, OLD
    )
    made[folder / "plugin-telemetry.yaml"] = manifest(
        "The plugin, and mx-smi in a pod of its own, both without privileges, as the chart's\n"
        "# default: serial numbers, temperatures, memory errors. Kubernetes 1.30 and later:\n"
        "# earlier ones do not know the objects of the ValidatingAdmissionPolicy; leave them out.",
        {"telemetry": {}},
    )
    made[folder / "plugin-privileged.yaml"] = manifest(
        "The plugin, privileged, with the host's mx-smi: serial numbers, temperatures, memory\n"
        "# errors. Kubernetes 1.22 and later.",
        {"security": {"profile": "privileged"}},
    )
    made[folder / "plugin-labels-events.yaml"] = manifest(
        "The plugin, without privileges, with a service account: labels of the node, events and\n"
        "# the condition SPUHealthy. Kubernetes 1.30 and later: earlier ones do not know the two\n"
        "# objects of the ValidatingAdmissionPolicy; leave them out.",
        {"labels": {"sink": "api"}, "events": True, "condition": True},
    )
    made[folder / "plugin-prometheus-operator.yaml"] = manifest(
        "The plugin, without privileges, with a PodMonitor and alerts for the Prometheus\n"
        "# Operator. Kubernetes 1.22 and later.",
        {"metrics": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}},
    )
    made[folder / "try-it.yaml"] = try_it()
    return made


def manifest(title: str, values: Mapping[str, Any], kubernetes: str = CURRENT) -> str:
    """A plain manifest of the chart with those values, without telemetry unless they say so."""
    values = {"telemetry": {"mode": "none"}, **values}
    text = template(values, kubernetes, release=RELEASE, namespace="kube-system")
    return _HEADER.format(title=title) + _HELM_LINES.sub("", text)


def try_it() -> str:
    """The first ten minutes: a simulated node, and a pod with two of its devices."""
    title = (
        "A simulated node with two S30 cards, and a pod that gets two of its SPUs: for a cluster\n"
        "# without hardware, Kubernetes 1.19 and later. docs/quickstart.md shows it."
    )
    # Without maxSurge, the one field of the default that those before 1.22 do not know.
    values = {"simulate": "2xS30", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}}
    pod = (DEPLOY / "kustomize" / "pod" / "spu-pod.yaml").read_text()
    return f"{manifest(title, values)}---\n{pod}"


_SCALAR = ["string", "number", "boolean"]
_ANY_SCALAR = [
    {"type": _SCALAR},
    {"type": "array", "items": {"type": _SCALAR}},
    {"enum": [None, ""]},
]


def with_configuration(text: str) -> str:
    """The chart's schema, with the configuration file's in it and the health rules that there
    are. The file's `version` may be left out of the values: the chart writes it."""
    configuration = json.loads((ROOT / "docs" / "config.schema.json").read_text())
    for key in ("$schema", "title", "required"):
        configuration.pop(key, None)
    text_only = json.dumps({"anyOf": _ANY_SCALAR})[1:-1].replace(json.dumps(_SCALAR), '"string"')
    # Helm rounds a long number before the plugin sees it.
    definition = re.sub(
        f'("serial": {{){re.escape(json.dumps({"anyOf": _ANY_SCALAR})[1:-1])}',
        lambda found: found[1] + text_only,
        json.dumps(configuration),
    )
    line = f'"$defs": {{"configuration": {definition}}},'
    text = re.sub(r'^  "\$defs": .*,$', lambda _: f"  {line}", text, count=1, flags=re.MULTILINE)
    rules = {
        "type": ["object", "null"],
        "properties": {rule.code: {"type": ["string", "number", "boolean"]} for rule in RULES},
        "additionalProperties": False,
    }
    line = f'"rules": {json.dumps(rules)},'
    return re.sub(r'^ {8}"rules": .*,$', lambda _: f"{' ' * 8}{line}", text, flags=re.MULTILINE)


def defaults(values: str) -> str:
    """The chart's values as a template: what a null stands for."""
    text = json.dumps(yaml.safe_load(values))
    return (
        "{{/* Made of values.yaml by tests/deploy/run --write. */}}\n"
        f'{{{{- define "spu.defaults" -}}}}\n{text}\n{{{{- end -}}}}\n'
    )


def write() -> list[Path]:
    """Brings every file up to date, and returns those that were not."""
    schema = CHART / "values.schema.json"
    # First: helm checks what it renders against the schema that lies there.
    before = schema.read_text()
    schema.write_text(with_configuration(before))
    changed = [] if schema.read_text() == before else [schema]
    (CHART / "templates" / "_defaults.tpl").write_text(
        defaults((CHART / "values.yaml").read_text())
    )
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(path)
    return changed
