"""What the command line takes, and what it says of what it does not take."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moffett_device_plugin.__main__ import main
from moffett_device_plugin.commands.line import COMMANDS, build_parser
from moffett_device_plugin.settings.options import OPTIONS
from moffett_device_plugin.settings.settings import ServeSettings, Values, serve_settings
from tests.support.fakehost import FakeHost

ROOT = Path(__file__).parents[2]


def settings(*flags: str, **env: str) -> ServeSettings:
    return serve_settings(Values(build_parser().parse_args(["serve", *flags]), env))


def test_the_defaults_are_those_of_the_manual() -> None:
    default = settings()
    assert str(default.hardware.host_root) == "/"
    assert str(default.kubelet_dir) == "/var/lib/kubelet/device-plugins"
    assert [str(resource) for resource in default.plugin_config.resources] == ["moffett.ai/spu"]
    assert default.hardware.smi is None
    assert default.hardware.simulate == ()


def test_a_variable_stands_for_each_flag_and_the_flag_wins() -> None:
    env = {"SPU_SIMULATE": "1xS30", "SPU_RESOURCE_NAME": "example.com/a", "SPU_LOG_FORMAT": "json"}
    assert settings(**env).hardware.simulate == ("S30",)
    assert settings(**env).log.form == "json"
    (resource,) = settings("--resource-name", "example.com/b", **env).plugin_config.resources
    assert resource.name == "example.com/b"
    assert settings(SPU_SIMULATE="").hardware.simulate == ()


@pytest.mark.parametrize(
    ("flag", "value", "remedy"),
    [
        ("--host-root", "/nowhere/at/all", "there is no such directory"),
        ("--kubelet-dir", "relative", "use an absolute path"),
        ("--kubelet-dir", "/etc/passwd", "it is not a directory"),
        ("--kubelet-dir", "/" + "x" * 100, "use one of up to"),
        ("--resource-name", "spu", "use DOMAIN/NAME"),
        ("--resource-name", "moffett.ai/", "use DOMAIN/NAME"),
        ("--resource-name", "kubernetes.io/spu", "outside kubernetes.io"),
        ("--resource-name", "Moffett.ai/spu", "use DOMAIN/NAME"),
        ("--simulate", "8xS31", "products: S4, S10, S30"),
        ("--simulate", "S30", "use COUNTxPRODUCT"),
        ("--simulate", "99999xS30", "at most 4096 chips"),
        ("--mx-smi", "mx-smi 'unclosed", "write it as for a shell"),
        ("--mx-smi-timeout", "forever", "from 0.1 to 60"),
        ("--mx-smi-interval", "0", "from 0.5 to 3600"),
        ("--recovery-seconds", "-1", "from 0 to 3600"),
        ("--control-device", "spuctl", "use a pattern below /dev"),
        ("--log-level", "loud", "use one of debug, info, warning, error"),
        ("--log-format", "xml", "use one of text, json"),
        ("--placement", "random", "use one of compact, spread, none"),
        ("--health", "over-temp=1", "did you mean over-temperature?"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_wrong_value_stops_the_start_with_one_line(
    flag: str,
    value: str,
    remedy: str,
    by_variable: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = flag
    argv = ["serve", f"{flag}={value}"]
    if by_variable:
        key = "SPU_" + flag[2:].replace("-", "_").upper()
        monkeypatch.setenv(key, value)
        argv = ["serve"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if "up to" not in remedy:
        assert key in error
    assert remedy in error


@pytest.mark.parametrize(
    "argv", [[], ["sevre"], ["serve", "--hots-root", "/"], ["devices", "-o", "x"]]
)
def test_a_wrong_command_line_is_one_line_too(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["sevre"], "there is no command 'sevre'; did you mean serve?"),
        (["xyz"], "there is no command 'xyz'; use one of serve, devices, "),
        ([""], "there is no command ''; use one of serve, devices, "),
        (["--simulate", "2xS30", "devices"], "--simulate: a command comes first, its options"),
        (["doctor", "--bundel", "x"], "did you mean --bundle?; see moffett-device-plugin doctor "),
        (["devices", "--hots-root", "/"], "there is no option --hots-root; did you mean --host-"),
        (["demo", "--jsn"], "there is no option --jsn; did you mean --json?"),
        (["serve", "--sim", "2xS30"], "there is no option --sim"),  # no abbreviations
        (["serve", "extra"], "unexpected argument 'extra'"),
        (["serve", "--control-node=/dev/x"], "its name is now --control-device"),
    ],
)
def test_what_is_not_known_is_answered_with_what_is(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(argv)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_screen_with_examples_and_the_manual(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.count(f"\n  moffett-device-plugin {command}") == 2
    (page,) = re.findall(r"Manual: docs/(\S+)", text)
    assert (ROOT / "docs" / page).is_file()
    assert "\nthis command:\n" in text
    if command == "serve":
        assert all(option.flag in text for option in OPTIONS.values())
        assert all(f"\n{title}:\n" in text for title in ("hardware", "health", "daemon"))
    else:
        assert text.count("\n") <= 50
        # What can be given is named, also where it is explained elsewhere.
        assert COMMANDS[command].settings == ("  health         --health " in text)


def test_old_names_are_refused_with_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    for text, now in (
        ("controlNodes: [/dev/x]", "controlDevices"),
        ("labels: {to: nfd}", "labels.sink"),
        ("nodes: [{match: {names: [a]}, labels: {to: nfd}}]", "labels.sink"),
    ):
        file.write_text(f"version: v1\n{text}\n")
        assert main(["config", "check", str(file)]) == 2
        assert f"its name is now {now}" in capsys.readouterr().err
    assert main(["simulate", "fail", "0000:34:00.0", "ecc"]) == 2
    assert "its name is now inject" in capsys.readouterr().err
    monkeypatch.setenv("SPU_CONTROL_NODE", "/dev/x")
    assert main(["devices"]) == 2
    assert "its name is now SPU_CONTROL_DEVICE" in capsys.readouterr().err


CONFIGURED = """
version: v1
simulate: {cards: 1xS4, control: %s}
health: {rules: {over-temperature: off}}
nodes:
- match: {names: [big]}
  simulate: {cards: 2xS4}
- match: {labels: {zone: a}}
  simulate: {cards: 3xS4}
"""


@pytest.mark.parametrize(
    ("flags", "env", "count"),
    [
        ((), {"SPU_NODE_NAME": "small"}, 1),
        ((), {"SPU_NODE_NAME": "big"}, 2),
        (("--node-name", "big", "--node-label", "zone=a"), {}, 3),
        (("--node-name", "big", "--simulate", "4xS4"), {}, 4),
    ],
)
@pytest.mark.parametrize("command", ["devices", "top", "explain", "simulate"])
def test_commands_read_the_configuration_that_the_daemon_reads(
    command: str,
    flags: tuple[str, ...],
    env: dict[str, str],
    count: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, control = tmp_path / "c.yaml", tmp_path / "control.json"
    file.write_text(CONFIGURED % control)
    monkeypatch.setenv("SPU_CONFIG", str(file))
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    words = {
        "devices": ["devices", "-o", "json"],
        "top": ["top", "--once", "-o", "json", "--pod-resources-socket", "none"],
        "explain": ["explain", "--size", "1", "-o", "json", "--pod-resources-socket", "none"],
        "simulate": ["simulate", "status"],
    }[command]
    assert main([*words, *flags]) == 0
    out = json.loads(capsys.readouterr().out)
    found = {
        "devices": lambda: out,
        "top": lambda: out["devices"],
        "explain": lambda: out["available"],
        "simulate": lambda: out["devices"],
    }[command]()
    assert len(found) == count


def test_sections_by_label_are_reported_where_labels_are_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(CONFIGURED % (tmp_path / "control.json"))
    assert main(["devices", "--config", str(file), "--node-name", "big"]) == 0
    assert "give them with --node-label" in capsys.readouterr().err


def test_a_wrong_file_stops_every_command_with_the_daemons_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("version: v1\nplacement: far\n")
    for words in (
        ["devices"],
        ["top", "--once"],
        ["explain", "--size", "1"],
        ["simulate", "status"],
    ):
        assert main([*words, "--config", str(file)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{file}:2: placement: 'far' is not valid" in error


def test_simulate_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = ["--simulate", "1xS4", "--simulate-control", str(tmp_path / "c.json")]
    for words, says in (
        (["inject", "0000:34:00.0", "ecc"], "0000:34:00.0: ecc: "),
        (["heal", "0000:34:00.0"], "0000:34:00.0: no faults"),
        (["remove", "0000:34:00.0"], "0000:34:00.0: off the bus"),
        (["restore", "0000:34:00.0"], "0000:34:00.0: back on the bus"),
        (["reboot", "0000:34:00.0", "--seconds", "0"], "off the bus for 0 s"),
    ):
        assert main(["simulate", *words, *node]) == 0
        assert says in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "9" * 5000, "1e999", ""])
def test_seconds_that_cannot_be_leave_the_card_on_the_bus(
    seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control = tmp_path / "c.json"
    words = ["simulate", "reboot", "0000:34:00.0", f"--seconds={seconds}", "--simulate", "1xS4"]
    assert main([*words, "--simulate-control", str(control)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not control.exists()


def devices(host: FakeHost, *flags: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "moffett_device_plugin", "devices", "-o", "json"]
    done = subprocess.run(
        [*command, "--host-root", str(host.root), *flags],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    listed = json.loads(done.stdout)
    assert isinstance(listed, list)
    return listed


def test_conform_answers_with_the_program_that_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["conform", "--list"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "device-plugin-conform," in line


def test_devices_as_json(host: FakeHost) -> None:
    host.s30(0x34)
    host.function("0000:40:00.0", ("pci0000:33", "0000:33:05.0"), device="0x7004", numa=-1)
    host.smi_table(
        "2, 0:36:00.0, 2023243080104, 43 C",
        "0, 0:37:00.0, 2023243080104, 44 C",
        "1, 0:38:00.0, 2023243080104, 45 C",
        columns="index, pci.bus_id, serial, temperature",
    )
    listed = devices(host)
    first, last = listed[0], listed[-1]
    assert first["id"] == first["bus_id"] == "0000:36:00.0"
    assert (first["index"], first["card"], first["numa_node"]) == (2, "2023243080104", 0)
    assert first["device_nodes"] == ["/dev/spu0"]
    assert (first["driver"], first["healthy"], first["reasons"]) == ("moffett", True, [])
    assert first["telemetry"]["temperature_celsius"] == 43.0  # type: ignore[index]
    assert (last["card"], last["numa_node"], last["healthy"]) == (None, None, False)
    assert [r["code"] for r in last["reasons"]] == ["firmware-not-loaded"]  # type: ignore


def test_devices_without_mx_smi(host: FakeHost) -> None:
    host.function("0000:36:00.0", driver=None, node=None)
    (device,) = devices(host)
    assert device["product"] == "S30"
    assert device["telemetry"] is None
    codes = [reason["code"] for reason in device["reasons"]]  # type: ignore[attr-defined]
    assert codes == ["no-driver", "no-device-node"]


def test_the_table_names_every_device_and_why_it_is_sick(host: FakeHost) -> None:
    host.s30(0x34)
    host.set("0000:37:00.0", "config", b"\xff" * 64)
    done = subprocess.run(
        [sys.executable, "-m", "moffett_device_plugin", "devices", "--host-root", host.root],
        capture_output=True, text=True, check=True, timeout=30,
        env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    assert "\x1b" not in done.stdout
    for text in ("0000:36:00.0", "0000:37:00.0", "0000:38:00.0", "config-unreadable", "2 healthy"):
        assert text in done.stdout


def test_a_node_without_spus_says_so(host: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--host-root", str(host.root)]) == 0
    assert "no SPU" in capfd.readouterr().out
    assert devices(host) == []


def test_simulate_refuses_what_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["simulate", "--simulate", "1xS4", "--simulate-control", str(tmp_path / "c.json")]
    for words, remedy in (
        (["inject", "0000:99:00.0", "ecc"], "use one of the node's, such as 0000:34:00.0"),
        (["inject", "0000:34:00.0", "melt"], "use one of gone, config"),
        (["inject", "node", "ecc"], "use one of smi-silent, sola-old"),
    ):
        assert main([*base, *words]) == 2
        assert remedy in capsys.readouterr().err
    (tmp_path / "c.json").write_text("{not json")
    assert main([*base, "status"]) == 2
    assert "delete it" in capsys.readouterr().err
