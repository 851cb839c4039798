"""The configuration file: what is refused, with which words, and what holds where."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from moffett_device_plugin.__main__ import main
from moffett_device_plugin.commands.line import build_parser
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.settings.load import parse_configuration
from moffett_device_plugin.settings.options import Values
from moffett_device_plugin.settings.schema import schema
from moffett_device_plugin.settings.sections import NodeFacts
from moffett_device_plugin.settings.settings import ServeSettings

FILE = Path("c.yaml")
ROOT = Path(__file__).parents[2]


def settings(text: str, *flags: str, node: str = "", **env: str) -> ServeSettings:
    values = Values(build_parser().parse_args(["serve", *flags]), env)
    return parse_configuration(FILE, text).settings(values, NodeFacts(node, {"zone": "a"}))


def names(text: str, *flags: str, node: str = "") -> list[str]:
    return [str(resource) for resource in settings(text, *flags, node=node).plugin_config.resources]


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_empty_file_of_version_v1_changes_nothing() -> None:
    assert settings("version: v1") == settings("version: v1\nresources: []\nlog:\n")
    assert names("version: v1") == ["moffett.ai/spu"]


def test_every_setting_can_be_in_the_file() -> None:
    found = settings("""
version: v1
controlDevices: [/dev/a*, /dev/b]
mxSmi: {command: none, timeoutSeconds: 2, intervalSeconds: 7.5}
log: {format: json, level: debug}
health:
  rules: {over-temperature: 95/85, ecc-corrected: off, link-degraded: false}
  recoverySeconds: 0
deviceListStrategy: [cdi-cri, device-specs]
injectSola: yes
preStartCheck: true
""")
    assert found.hardware.control_devices == ("/dev/a*", "/dev/b")
    assert (found.hardware.smi, found.hardware.smi_timeout, found.smi_interval) == ("", 2, 7.5)
    assert (found.log.form, found.log.level) == ("json", "debug")
    assert found.health.limits["over-temperature"] == (95, 85)
    assert found.health.off == {"ecc-corrected", "link-degraded"}
    assert found.health.recovery_seconds == 0
    assert found.plugin_config.device_list_strategy.strategies == {"cdi-cri", "device-specs"}
    assert found.plugin_config.device_list_strategy.inject_sola
    assert found.plugin_config.options.pre_start


def test_the_names_of_resources_follow_from_what_they_are() -> None:
    assert names("""
version: v1
resources:
- select: {product: S30}
- select: {product: S4}
  granularity: card
- select: {product: [S10]}
  sharing: {replicas: 4}
- select: {product: X}
  name: example.com/x
  sharing: {replicas: 2}
- select: {product: Y}
  name: example.com/y
  sharing: {replicas: 2, rename: false}
""") == [
        "moffett.ai/spu",
        "moffett.ai/spu-card",
        "moffett.ai/spu.shared",
        "example.com/x.shared",
        "example.com/y",
    ]
    assert names("version: v1\nresources: [{resourceNameFrom: product, granularity: card}]") == [
        "moffett.ai/PRODUCT-card"
    ]


def test_what_stands_at_the_top_holds_for_every_resource() -> None:
    assert names("version: v1\ngranularity: card") == ["moffett.ai/spu-card"]
    assert names("version: v1\nresourceNameFrom: product") == ["moffett.ai/PRODUCT"]
    assert names("version: v1\nsharing: {replicas: 3}", "--granularity", "card") == [
        "moffett.ai/spu-card.shared"
    ]
    assert names("""
version: v1
granularity: card
sharing: {replicas: 2}
resources:
- select: {product: S30}
- select: {product: S4}
  granularity: device
  sharing: {replicas: 1}
""") == ["moffett.ai/spu-card.shared", "moffett.ai/spu"]
    for_some = "version: v1\nnodes:\n- match: {names: [a]}\n  granularity: card"
    assert names(for_some, "--node-name", "a", node="a") == ["moffett.ai/spu-card"]
    assert names(for_some, "--node-name", "b", node="b") == ["moffett.ai/spu"]


def test_flags_win_over_variables_and_those_over_the_file() -> None:
    text = "version: v1\nlog: {level: error}\nmxSmi: {intervalSeconds: 9}"
    assert settings(text).log.level == "error"
    assert settings(text, SPU_LOG_LEVEL="debug").log.level == "debug"
    assert settings(text, "--log-level", "warning", SPU_LOG_LEVEL="debug").log.level == "warning"
    assert settings(text, "--log-level", "warning").smi_interval == 9
    assert names("version: v1\nresources: [{granularity: card}]", "--granularity", "device") == [
        "moffett.ai/spu"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml: version: '' is not valid: begin the file with version: v1"),
        ("version: v2", "c.yaml:1: version: 'v2' is not valid: use v1"),
        ("[1]", "c.yaml:1: 'a list' is not valid: use a mapping"),
        ("a: 1\n--- \nb: 2", "use one document"),
        ("version: v1\nlog:\n  level: loud", "c.yaml:3: log.level: 'loud' is not valid: use one"),
        (
            "version: v1\nlog: {levl: info}",
            "c.yaml:2: log.levl: 'levl' is not valid: there is no such key; did you mean level?",
        ),
        ("version: v1\nselect: {index: 1}", "there is no such key; it is resources[].select"),
        ("version: v1\nplacement: far", "c.yaml:2: placement: 'far' is not valid: use one of"),
        ("version: v1\nlog: [a]", "c.yaml:2: log: 'a list' is not valid: use a mapping with"),
        ("version: v1\nlog: {level: [info]}", "log.level: 'a list' is not valid: use a single"),
        ("version: v1\nresources: {name: x}", "resources: 'a mapping' is not valid: use a list"),
        ("version: v1\nversion: v1", "c.yaml:2: 'version' is not valid: it is on line 1 already"),
        ("version: v1\nlog: {level: info", "is not valid: this is not YAML"),
        ("version: v1\n\tlog: 1", "c.yaml:2: 'log: 1' is not valid: this is not YAML"),
        ("version: v1\ncontrolDevices: ['/dev/a,/dev/b']", "use an item of its own for each value"),
        ("version: v1\nhealth: {rules: {hot: 3}}", "'hot=3' is not valid: there is no such rule"),
        (
            "version: v1\nresources:\n- name: spu",
            "c.yaml:3: resources[0].name: 'spu' is not valid: use DOMAIN/NAME",
        ),
        (
            "version: v1\nresources:\n- sharing: {replicas: 0}",
            "c.yaml:3: resources[0].sharing.replicas: '0' is not valid: use a whole number from 1",
        ),
        (
            "version: v1\nresources:\n- select: {busId: [36:00]}",
            "c.yaml:3: resources[0].select.busId: '36:00' is not valid: use a bus id",
        ),
        (
            "version: v1\nresources: [{name: a.io/b, resourceNameFrom: product}]",
            "leave the name out: resourceNameFrom is product",
        ),
        (
            "version: v1\nresources: [{sharing: {failRequestsGreaterThanOne: true}}]",
            "set sharing.replicas to 2 or more",
        ),
        (
            "version: v1\nresources:\n- name: a.io/b\n- name: a.io/c\n",
            "c.yaml:4: resources[1]: 'a.io/c' is not valid: a device could be in c.yaml:3: "
            "resources[0] (a.io/b) as well",
        ),
        (
            "version: v1\nresources:\n- {name: a.io/b, select: {index: 0}}\n"
            "- {name: a.io/b, select: {index: 1}}",
            "resources[1].name: 'a.io/b' is not valid: c.yaml:3: resources[0] has this name",
        ),
        (
            "version: v1\nresources:\n- deviceApi: dra\n- select: {index: 1}\n",
            "c.yaml:4: resources[1]: 'moffett.ai/spu' is not valid: a device could be in",
        ),
        (
            "version: v1\nsharing: {replicas: 4}\n"
            "nodes: [{match: {labels: {a: b}}, deviceApi: dra}]",
            "c.yaml:2: sharing.replicas: '4' is not valid: through DRA a claim gets whole devices",
        ),
        ("version: v1\nnodes: [{log: {level: info}}]", "nodes[0].match: '' is not valid: say whi"),
        # A mistake in another node's section is found before it gets there.
        (
            "version: v1\nnodes:\n- match: {labels: {a: b}}\n  log: {level: x}",
            "c.yaml:4: log.level: 'x' is not valid",
        ),
        ("version: v1\nnodes: [{match: {names: [a]}}]", "--node-name: '' is not valid: c.yaml has"),
        ("a: &x [*x]", "nest at most"),
        ("a: !!python/object/apply:os.system [echo]", "begin the file with version: v1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(text: str, message: str) -> None:
    assert message in refusal(text)


def test_a_file_that_would_be_billions_of_values_is_refused() -> None:
    lines = ["version: v1", "a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "use at most 20000 values" in refusal("\n".join(lines))


NODES = """
version: v1
log: {level: warning, format: json}
nodes:
- match: {names: [gpu-*, big]}
  log: {level: error}
- match: {labels: {zone: a}, names: [gpu-1]}
  resources: [{granularity: card}]
- match: {labels: {zone: b}}
  log: {level: debug}
"""


def test_sections_for_nodes_go_over_the_rest_in_their_order() -> None:
    assert settings(NODES, node="cpu").log.level == "warning"
    assert settings(NODES, node="gpu-7").log.level == "error"
    assert settings(NODES, node="gpu-7").log.form == "json"
    assert names(NODES, node="gpu-7") == ["moffett.ai/spu"]
    assert names(NODES, node="gpu-1") == ["moffett.ai/spu-card"]


BOTH = """
version: v1
resources:
- {deviceApi: dra, select: {numaNode: 0}}
- {exclude: {numaNode: 0}}
nodes:
- match: {labels: {api: dra}}
  deviceApi: dra
  resources: []
"""


def test_a_node_or_a_part_of_its_devices_is_given_out_through_dra() -> None:
    here = settings(BOTH)
    assert [one.select.numa_nodes for one in here.dra_resources] == [{"0"}]
    assert [str(one) for one in here.advertised.resources] == ["moffett.ai/spu"]
    labels = NodeFacts("node", {"api": "dra"})
    there = parse_configuration(FILE, BOTH).settings(Values(argparse.Namespace(), {}), labels)
    assert len(there.dra_resources) == 1
    assert not there.advertised.resources


def test_directories_of_other_nodes_are_not_looked_for_here(tmp_path: Path) -> None:
    text = "version: v1\nnodes: [{match: {names: [other]}, hostRoot: /no/such/place}]"
    assert settings(text, node="this").hardware.host_root == Path("/")
    with pytest.raises(ConfigurationError, match="there is no such directory"):
        settings(text, node="other")


# -- the commands -----------------------------------------------------------------------


def test_check_says_yes_or_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(NODES)
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: valid, 3 of its sections for some nodes\n"
    file.write_text(NODES + "x: 1\n")
    assert main(["config", "check", str(file)]) == 2
    assert f"{file}:11: x: 'x' is not valid" in capsys.readouterr().err
    assert main(["config", "check", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_show_prints_a_file_that_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(NODES + "mxSmi: {intervalSeconds: 3}\nhealth: {rules: {aer-fatal: 2}}\n")
    command = ["config", "show", "--config", str(file), "--node-name", "gpu-1"]
    assert main([*command, "--node-label", "zone=a", "--log-format", "text"]) == 0
    printed = capsys.readouterr().out
    assert 'format: "text"  # --log-format' in printed
    assert f'level: "error"  # {file}:6' in printed
    assert "timeoutSeconds: 5  # default" in printed
    assert f'granularity: "card"  # {file}:8' in printed
    values = Values(argparse.Namespace(), {})
    shown = parse_configuration(FILE, printed).settings(values, NodeFacts("gpu-1"))
    assert shown.log.level == "error"
    assert shown.smi_interval == 3
    assert shown.health.limits["aer-fatal"] == (2,)
    assert [str(resource) for resource in shown.plugin_config.resources] == ["moffett.ai/spu-card"]


@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        ("labels: {zone: a}", "labels: {disk: b}", True),
        ("labels: {zone: a}", "labels: {zone: b}", False),  # no node has both
        ("names: [train-*]", "names: [train-1]", True),
        ("names: [train-1]", "names: [train-2]", False),
        ("names: [train-1]", "labels: {zone: a}", True),
    ],
)
def test_check_tries_the_sections_that_one_node_can_match(
    first: str, second: str, wrong: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"""
version: v1
nodes:
- match: {{{first}}}
  sharing: {{replicas: 4, failRequestsGreaterThanOne: true}}
- match: {{{second}}}
  sharing: {{replicas: 1}}
""")
    assert main(["config", "check", str(file)]) == (2 if wrong else 0)
    error = capsys.readouterr().err
    assert ("a node that the sections on lines 4, 6 match" in error) is wrong


# -- the schema -------------------------------------------------------------------------


def test_the_published_schema_is_the_one_of_the_code() -> None:
    published = json.loads((ROOT / "docs" / "config.schema.json").read_text())
    assert published == schema(), "run: tools/reference"


@pytest.mark.parametrize(
    "text",
    [
        NODES,
        "version: v1\nresources: [{select: {index: [0, 1]}, sharing: {replicas: 3}}]",
        "version: v1\nhealth: {rules: {over-temperature: 95/85, ecc-corrected: off, aer-fatal: 1}}",
        "version: v1\ndeviceListStrategy: cdi-cri\ninjectSola: true\nlog:\n",
    ],
)
def test_the_schema_accepts_what_the_plugin_accepts(text: str) -> None:
    settings(text, node="n")
    jsonschema.validate(yaml.safe_load(text), schema())


@pytest.mark.parametrize(
    "text",
    [
        "log: {level: info}",
        "version: v1\nlog: {level: loud}",
        "version: v1\nlogs: {}",
        "version: v1\nresources: [{sharing: {replicas: 0}}]",
        "version: v1\nnodes: [{log: {level: info}}]",
        "version: v1\nmxSmi: {timeoutSeconds: 1000}",
    ],
)
def test_the_schema_refuses_what_the_plugin_refuses(text: str) -> None:
    refusal(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())
