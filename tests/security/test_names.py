"""Names that hardware, mx-smi and other people's pods choose, wherever they end up."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from moffett_device_plugin.allocation.allocate_result import build_allocate_result
from moffett_device_plugin.cdi.directory import CdiDirectory
from moffett_device_plugin.cdi.names import annotation, device_name, qualified
from moffett_device_plugin.cdi.spec import build_spec
from moffett_device_plugin.commands.device_rows import TOP, cell, rows_of
from moffett_device_plugin.deviceplugin.service import response_of
from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus, observe_smi
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.doctor.findings import fail
from moffett_device_plugin.doctor.report import line
from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.mxsmi import parse_select
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.hardware.uevents import concerns_devices
from moffett_device_plugin.labels.compute import ResourceFacts, labels_of
from moffett_device_plugin.metrics.exposition import Format, render
from moffett_device_plugin.metrics.families import collect
from moffett_device_plugin.metrics.view import View
from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.resources.pools import Resource, build_pools
from moffett_device_plugin.runtime.counters import Counters
from moffett_device_plugin.runtime.log import fields_of, set_up, text_value
from tests.support.fakehost import FakeHost

#: Markup, quotes, shells, paths, a terminal's commands in both their forms, a word that is
#: written from right to left.
EVIL = "".join(
    (
        "[/][bold red][link=file:///x]:bomb:",
        "\"'\\{}=$(id)`id`;../../etc/shadow#%s%n",
        "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202eevil",
    )
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
COLUMNS = "index, pci.bus_id, name, serial, uuid, board, firmware_version, mcu_version, " + (
    "driver_version, sola_version"
)


def table(bus_ids: list[str], text: str = EVIL) -> list[str]:
    return [f"{n}, {bus_id}" + f", {text}" * 8 for n, bus_id in enumerate(bus_ids)]


def evil_state(host: FakeHost) -> NodeState:
    """A node whose mx-smi gives the worst names there are."""
    bus_ids = host.s30(0x34)
    scan = SysfsHardware(host.root).scan(Look())
    bus = observe_bus(Snapshot(), scan)
    seen = observe_smi(bus, parse_select("\n".join([COLUMNS, *table(bus_ids)])), bus.scan)
    assert seen.devices[0].serial is not None
    return NodeState(seen, evaluate(seen, {}, HealthPolicy(), 0.0).health_statuses, settled=True)


# -- device nodes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/shadow", "/etc/shadow", "/dev/../etc/shadow", "x/../../etc", ".", "..", "a//b",
        "spu\x1b[2J", "spu\x9b", "spu\u202e0", "spu\x7f", "a\tb", "/dev/", "spu/",
    ],
)  # fmt: skip
def test_a_device_name_that_leaves_dev_or_is_not_printable_is_no_node(
    host: FakeHost, name: str
) -> None:
    path = host.function("0000:36:00.0", node="spu0")
    uevent = path / "moffett/spu0/uevent"
    uevent.write_text(f"MAJOR=240\nMINOR=0\nDEVNAME={name}\n")
    (function,) = SysfsHardware(host.root).scan(Look()).functions
    assert function.nodes == ()


def test_a_device_directory_with_bytes_that_are_no_text_is_no_node(host: FakeHost) -> None:
    path = host.function("0000:36:00.0", node=None)
    folder = os.fsencode(path) + b"/moffett/spu\xff\xfe"
    os.makedirs(folder)
    Path(os.fsdecode(folder + b"/dev")).write_text("240:0\n")
    (function,) = SysfsHardware(host.root).scan(Look()).functions
    assert function.nodes == ()


@pytest.mark.parametrize("name", ["spu²", "spu٣", "spu" + "9" * 200, "spu0123456789"])
def test_digits_of_any_kind_in_a_name_are_sorted(host: FakeHost, name: str) -> None:
    path = host.function("0000:36:00.0", node="spu1")
    host.node(path, name)
    (function,) = SysfsHardware(host.root).scan(Look()).functions
    assert {node.host_path for node in function.nodes} == {"/dev/spu1", f"/dev/{name}"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("numa_node", "9" * 30),
        ("numa_node", "9" * 5000),
        ("numa_node", "-" + "9" * 30),
        ("current_link_width", "1" * 400),
        ("current_link_speed", "9" * 400 + " GT/s"),
        ("aer_dev_fatal", "TOTAL_ERR_FATAL " + "9" * 5000),
        ("aer_dev_fatal", "TOTAL_ERR_FATAL ²"),
        ("subsystem_device", "0x" + "f" * 400),
        ("device", "\xff\xfe"),
    ],
)
def test_no_number_of_the_bus_ends_the_daemon(host: FakeHost, file: str, text: str) -> None:
    host.function("0000:36:00.0")
    host.set("0000:36:00.0", file, text)
    seen = observe_bus(Snapshot(), SysfsHardware(host.root).scan(Look()))
    state = NodeState(seen, evaluate(seen, {}, HealthPolicy(), 0.0).health_statuses, settled=True)
    (pool,) = build_pools(state)[0]
    assert response_of(pool.advertised())
    assert "".join(render(collect(View(state, Counters(), 0.0, 0.0)), "text"))


@given(st.one_of(st.binary(max_size=200), st.sampled_from([b"", b"\0", b"add@/x\0SUBSYSTEM=pci"])))
def test_a_uevent_is_a_reason_to_look_and_nothing_more(message: bytes) -> None:
    told = concerns_devices(message)
    assert told is (b"SUBSYSTEM=pci" in message.split(b"\0")) or b"DEVNAME=" in message


def test_a_driver_by_the_name_of_a_directory_above_is_none(host: FakeHost) -> None:
    path = host.function("0000:36:00.0", driver=None)
    (path / "driver").symlink_to("../..")
    host.node(host.sys / "devices/virtual", "stranger", "other")
    scan = SysfsHardware(host.root).scan(Look())
    assert scan.functions[0].driver is None
    assert scan.control_nodes == ()


# -- what a container gets --------------------------------------------------------------------


def test_a_container_gets_variables_made_of_bus_ids(host: FakeHost) -> None:
    state = evil_state(host)
    given = build_allocate_result([device.id for device in state.snapshot.devices], state)
    names = {"MOFFETT_SPU_IDS", "MOFFETT_SPU_INDEXES", "MOFFETT_SPU_BUS_IDS"}
    assert set(given.envs) == names | {f"{name}_MOFFETT_AI_SPU" for name in names}
    for value in given.envs.values():
        assert re.fullmatch(r"[0-9a-f:.,]+", value)
    for node in given.nodes:
        assert re.fullmatch(r"/dev/spu\d+", node.host_path)
        assert node.permissions == "rw"
    assert given.mounts == ()


def test_a_cdi_spec_has_legal_names_and_nodes_below_dev(host: FakeHost, tmp_path: Path) -> None:
    state = evil_state(host)
    spec = build_spec(state.snapshot)
    assert spec is not None
    directory = CdiDirectory(tmp_path / "cdi")
    directory.write(spec)
    assert [path.name for path in (tmp_path / "cdi").iterdir()] == ["moffett.ai-spu.json"]
    for device in json.loads(directory.file.read_text())["devices"]:
        assert re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.:]*", device["name"])
        for node in device["containerEdits"]["deviceNodes"]:
            assert re.fullmatch(r"/dev/spu\d+", node["path"])


@pytest.mark.parametrize("text", [EVIL, "../../x", "", "\0", "a/b", "all", "\udcff", "ä" * 300])
def test_any_id_becomes_a_cdi_name_that_is_no_path(text: str) -> None:
    name = device_name(text)
    assert "/" not in name
    assert qualified("moffett.ai/spu", name).endswith(name)
    key, _ = annotation("moffett-device-plugin", text, ["moffett.ai/spu=all"])
    assert re.fullmatch(r"cdi\.k8s\.io/[A-Za-z0-9][-A-Za-z0-9_.]{0,62}", key)


# -- what operators see -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_no_name_makes_a_series_or_a_label_of_its_own(host: FakeHost, form: Format) -> None:
    state = evil_state(host)
    pools, unassigned = build_pools(state)
    holder = Holder('ns"} 1\n# x', 'p\\"\nmoffett_spu_healthy{device="x"} 0\n', EVIL)
    holders = {"moffett.ai/spu": {state.snapshot.devices[0].id: (holder,)}}
    view = View(state, Counters(), 0.0, 0.0, pools, unassigned, {}, holders, holders_known=True)
    text = "".join(render(collect(view), form))
    read = read_openmetrics if form == "openmetrics" else read_text
    families = list(read(text))  # type: ignore[no-untyped-call]
    samples = [sample for family in families for sample in family.samples]
    assert {s.labels["device"] for s in samples if s.name == "moffett_spu_healthy"} == {
        device.id for device in state.snapshot.devices
    }
    products = {s.labels["product"] for s in samples if "product" in s.labels}
    assert products == {state.snapshot.devices[0].product}
    assert {s.labels["pod"] for s in samples if s.labels.get("pod")} == {holder.pod}
    for written in text.split("\n")[:-1]:
        assert re.match(r"# (HELP|TYPE|UNIT|EOF)\b|moffett_\w+[{ ]|process_\w+ ", written), written


def test_every_label_of_the_node_is_legal(host: FakeHost) -> None:
    labels = labels_of(evil_state(host), (ResourceFacts("moffett.ai/spu"),))
    assert labels["moffett.ai/spu.product"]
    for key, value in labels.items():
        assert re.fullmatch(r"moffett\.ai/spu\.[a-z-]+", key)
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value), key


def test_a_resource_by_product_has_a_name_that_kubelets_take() -> None:
    for product in (EVIL, "S" * 128, "-" * 60 + "x", "9" * 128):
        name = Resource(None, granularity="card").name_for(product)
        assert name is None or re.fullmatch(
            r"moffett\.ai/[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", name
        )


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("text", [EVIL, "a\nevent=forged", "\u2028x", "\x85y", "\udcff", "ä中文"])
def test_a_record_is_one_line_without_control_characters(
    form: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging.root.handlers[:], logging.root.level
    try:
        set_up(form, "info")  # type: ignore[arg-type]
        logging.getLogger("x").info("found", extra={"serial": text, "all": [text]})
    finally:
        logging.root.handlers[:], level = before[0], before[1]
        logging.root.setLevel(level)
    written = capsys.readouterr().err
    assert written.endswith("\n")
    assert len(written.splitlines()) == 1
    assert written[:-1].isprintable()
    if form == "json":
        assert json.loads(written)["serial"] == text
    else:
        assert len(re.findall(r"(?:^| )event=", re.sub(r'"(?:[^"\\]|\\.)*"', "", written))) == 1


def test_what_is_harmless_is_logged_as_it_is() -> None:
    assert text_value("S30-中文") == "S30-中文"
    assert text_value("two wörds") == '"two wörds"'
    assert dict(fields_of(logging.makeLogRecord({"msg": "m", "a": EVIL})))["a"] == EVIL


COMMANDS = (
    ["devices"],
    ["devices", "-o", "json"],
    ["explain", "--size", "2"],
    ["doctor"],
    ["top", "--once"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_terminal_is_told_nothing_by_names(
    host: FakeHost, short_dir: Path, command: list[str]
) -> None:
    host.smi_table(*table(host.s30(0x34)), columns=COLUMNS)
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "400"}
    done = subprocess.run(
        [sys.executable, "-m", "moffett_device_plugin", *command,
         "--host-root", str(host.root), "--kubelet-dir", str(short_dir)],
        capture_output=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    told = done.stdout.decode() + done.stderr.decode()
    assert "[bold red]" in told
    assert "Traceback" not in told
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told)  # our own colours
    assert not CONTROL.search(plain), CONTROL.search(plain)


def test_names_of_pods_and_findings_are_shown_legibly(host: FakeHost) -> None:
    state = evil_state(host)
    holders = {state.snapshot.devices[0].id: (Holder("ns\x1b[2J", "pod\n\x9b", "c"),)}
    for row in rows_of(state, holders):
        assert all(cell(row, column).isprintable() for column in TOP)
    finding = replace(fail(EVIL + "\nmore", EVIL, EVIL), check="x")
    assert line(finding).isprintable()
