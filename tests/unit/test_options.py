"""Every option with every command: legal values work, all others are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from moffett_device_plugin.__main__ import main
from moffett_device_plugin.commands.line import build_parser
from moffett_device_plugin.devices.health.rules import RULES
from moffett_device_plugin.doctor.examine import examine
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.settings.options import OPTIONS, Values
from moffett_device_plugin.settings.settings import serve_settings

COMMANDS = {
    "serve": "serve",
    "devices": "devices -o json",
    "top": "top --once -o json",
    "explain": "explain --size 1 -o json",
    "simulate": "simulate status",
    "config": "config show",
    "doctor": "doctor",
}
SWITCH = ["true", "false", "Yes", "off", "1", "0"]
#: Values of each kind that an option takes; all of them where they are few.
LEGAL = {
    "--config": ["{tmp}/c.yaml"],
    "--node-name": ["node-1"],
    "--host-root": ["/", "{tmp}", "."],
    "--mx-smi": ["none", "mx-smi", "env X='a b' mx-smi"],
    "--mx-smi-timeout": ["0.1", "60", "5s"],
    "--telemetry-source": ["mx-smi", "socket", "none"],
    "--telemetry-socket": ["{tmp}/telemetry.sock"],
    "--control-device": ["/dev/x", "/dev/x*,/dev/y", ""],
    "--device-node": ["/dev/spu{{index}}", "/dev/spu*,!/dev/spu-ctl"],
    "--virtual-functions": SWITCH,
    "--simulate": ["1xS4", "2xS30,1xS10"],
    "--simulate-control": ["{tmp}/other.json"],
    "--monitoring-units": ["0", "100", ""],
    "--monitoring-resource-name": ["example.com/monitoring"],
    "--health": ["", *(f"{rule.code}=off" for rule in RULES), "over-temperature=95/85"],
    "--flapping-seconds": ["none", "60", "1,2.5,86400"],
    "--cordon-annotation": SWITCH,
    "--cordon": ["0000:99:00.0,card-98:00.0", ""],
    "--state-dir": ["{tmp}", "/no/such"],
    "--recovery-seconds": ["0", "3600"],
    "--resource-name": ["a.io/b"],
    "--resource-name-from": ["config", "product"],
    "--granularity": ["device", "card"],
    "--placement": ["compact", "spread", "none"],
    "--sharing-replicas": ["1", "2", "1000"],
    "--sharing-rename": SWITCH,
    "--sharing-max-per-pod": ["1", "100000"],
    "--sharing-fail-requests-greater-than-one": ["false"],
    "--kubelet-dir": ["{tmp}", "/no/such"],
    "--pod-resources-socket": ["none", "/no/such.sock"],
    "--mx-smi-interval": ["0.5", "3600"],
    "--device-list-strategy": ["device-specs", "cdi-annotations", "cdi-cri,envvar"],
    "--device-api": ["device-plugin", "dra"],
    "--dra-evict": ["bus-gone,over-temperature"],
    "--plugins-registry-dir": ["{tmp}"],
    "--cdi-dir": ["{tmp}"],
    "--cdi-version": ["0.5.0", "0.6.0"],
    "--inject-sola": SWITCH,
    "--pre-start-check": SWITCH,
    "--metrics-address": [":9400", "127.0.0.1:9400", "[::1]:9400", ""],
    "--labels": ["none", "nfd", "api"],
    "--nfd-file": ["{tmp}/nfd"],
    "--events": SWITCH,
    "--condition": SWITCH,
    "--api-server": ["https://10.0.0.1:443", ""],
    "--api-token-file": ["{tmp}/token"],
    "--api-ca-file": ["{tmp}/ca"],
    "--log-format": ["text", "json"],
    "--log-level": ["debug", "info", "warning", "error"],
}
NUMBERS = ["9" * 5000, "nan", "inf", "-1", "1e999", "٣", "0x10", " ", "\0", "-9" + "0" * 4400]


def run(command: str, flags: list[str], directory: Path) -> int:
    """Its exit code; what is wrong in it raises nothing but SystemExit."""
    words = COMMANDS[command].split()
    words += ["--simulate", "1xS4", "--simulate-control", str(directory / "control.json")]
    words += ["--kubelet-dir", "/no/such", "--pod-resources-socket", "none", *flags]
    if command == "serve":  # but for what runs until it is ended
        try:
            serve_settings(Values(build_parser("serve").parse_args(words), {}))
        except ConfigurationError:
            return 2
        return 0
    if command == "doctor":  # but for its checks of this machine
        try:
            examine(build_parser("doctor").parse_args(words), {}, words)
        except ConfigurationError:
            return 2
        return 0
    return main(words)


def test_every_option_is_tried() -> None:
    assert set(LEGAL) == set(OPTIONS)


@pytest.mark.parametrize("flag", LEGAL)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_legal_value_is_taken_by_every_command(
    command: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("version: v1\n")
    for value in LEGAL[flag]:
        given = value.format(tmp=tmp_path)
        # A card of one device has no room for the many shares that `explain` could place.
        assert run(command, [f"{flag}={given}"], tmp_path) == 0, (value, capsys.readouterr().err)


@pytest.mark.parametrize("flag", LEGAL)
@pytest.mark.parametrize("command", ["serve", "explain"])
def test_no_value_is_more_than_one_line_of_error(
    command: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in NUMBERS:
        assert run(command, [f"{flag}={value}"], tmp_path) in (0, 1, 2)
        assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    "words", ["explain --size={}", "top --once --interval={}", "simulate reboot x --seconds={}"]
)
def test_no_number_of_a_command_is_a_traceback(
    words: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(value) for word in words.split()]
    assert main([*given, "--simulate", "1xS4", "--pod-resources-socket", "none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("key", ["index", "numaNode", "busId", "serial", "product"])
@pytest.mark.parametrize("value", ["9" * 5000, "-1", ".nan", "٣", "1e999"])
def test_no_number_of_a_selector_is_a_traceback(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"version: v1\nresources: [{{select: {{{key}: {value}}}}}]\n")
    assert main(["config", "check", str(file)]) in (0, 2)
    assert capsys.readouterr().err.count("\n") <= 1
