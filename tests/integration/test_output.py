"""Commands whose standard output is not a terminal of UTF-8, and commands that are ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal import on_a_terminal

PROGRAM = [sys.executable, "-m", "moffett_device_plugin"]
NODE = ["--simulate", "2xS30", "--simulate-control"]
#: Each prints several lines and looks at no machine but a simulated one.
COMMANDS = {
    "devices": ["devices", *NODE, "{control}"],
    "top": ["top", "--once", "--pod-resources-socket", "none", *NODE, "{control}"],
    "explain": ["explain", "--size", "2", "--pod-resources-socket", "none", *NODE, "{control}"],
    "doctor": ["doctor", *NODE, "{control}"],
    "simulate": ["simulate", "status", *NODE, "{control}"],
    "config": ["config", "show"],
    "help": ["serve", "--help"],
    "short help": ["--help"],
    "version": ["--version"],
    "demo": ["demo"],
}


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    words = [word.format(control=tmp_path / "c.json") for word in COMMANDS[request.param]]
    return [*PROGRAM, *words]


def test_output_that_is_closed_or_full_is_no_traceback(command: list[str]) -> None:
    script = "trap '' PIPE; set -o pipefail; {command} {redirected}; echo $? >&2"
    for redirected, codes in (
        ("| true", {0, 141}),  # 0: it had ended before
        (">/dev/full", {1}),
        (">&-", {0, 1}),  # 1: doctor, for what fails on this machine
        (">&- 2>&- <&-", {0, 1}),
    ):
        line = script.format(command=" ".join(command), redirected=redirected)
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True
        )
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
        assert len(done.stderr.splitlines()) <= 3  # why, and the code
        if "2>&-" not in redirected:
            assert int(done.stderr.split()[-1]) in codes


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_a_character_is_no_error(command: list[str], encoding: str) -> None:
    done = subprocess.run(
        command, capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode in (0, 1)
    assert b"Traceback" not in done.stderr
    assert done.stdout.decode(encoding)


def test_json_for_an_ascii_reader_is_json(tmp_path: Path) -> None:
    command = [*PROGRAM, "devices", "-o", "json", *NODE, str(tmp_path / "c.json")]
    done = subprocess.run(
        command, capture_output=True, timeout=60, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert len(json.loads(done.stdout)) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_reboot_that_is_ended_early_leaves_nothing_off_the_bus(
    number: signal.Signals, tmp_path: Path
) -> None:
    control = tmp_path / "c.json"
    node = [*NODE, str(control)]
    command = [*PROGRAM, "simulate", "reboot", "0000:36:00.0", "--seconds", "600", *node]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "off the bus" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    status = subprocess.run(
        [*PROGRAM, "simulate", "status", *node], capture_output=True, text=True, check=True
    )
    assert set(map(tuple, json.loads(status.stdout)["devices"].values())) == {()}
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_a_demo_that_is_ended_leaves_no_files(short_dir: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(short_dir)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "discovered" in process.stdout.readline()
        assert list(short_dir.iterdir())
        process.terminate()
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "done" not in rest
    assert errors == ""
    assert not list(short_dir.iterdir())


def test_a_demo_without_room_for_its_sockets_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    done = subprocess.run(
        [*PROGRAM, "demo"], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "set TMPDIR to a shorter path" in done.stdout
    assert not list(folder.iterdir())


@pytest.mark.parametrize("file", ["/dev/zero", "/proc/self/mem", "fifo", "/proc/none/c.json"])
def test_a_control_file_that_cannot_be_one_is_one_line(file: str, tmp_path: Path) -> None:
    if file == "fifo":
        file = str(tmp_path / "fifo")
        os.mkfifo(file)
    done = subprocess.run(
        [*PROGRAM, "simulate", "inject", "0000:36:00.0", "ecc", *NODE, file],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--simulate-control" in done.stderr


#: Columns; on fewer than these a PCI address and its health do not fit.
WIDTHS = (20, 40, 80)


def lines_of(command: list[str], width: int) -> list[str]:
    session = on_a_terminal(command, width)
    assert b"Traceback" not in session.errors
    assert session.code in (0, 1)
    return session.lines


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrow_terminal_is_no_error(command: list[str], width: int) -> None:
    assert any(line.strip() for line in lines_of(command, width))


@pytest.mark.parametrize("width", [24, 59, 80])
def test_the_demo_keeps_every_word_on_a_narrow_terminal(width: int) -> None:
    lines = lines_of([*PROGRAM, "demo"], width)
    words = " ".join(" ".join(lines).split())
    assert "…" not in words
    assert "kubelet-restarted" in words
    assert "pod inference kept its devices." in words
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_each_device_keeps_its_health_on_a_narrow_terminal(width: int, tmp_path: Path) -> None:
    lines = lines_of([*PROGRAM, "devices", *NODE, str(tmp_path / "c.json")], width)
    devices = [line for line in lines if "0000:" in line]
    assert len(devices) == 6
    assert all(re.search(r"0000:[0-9a-f]{2}:00\.0 .*heal", line) for line in devices)


def test_the_demo_wraps_nothing_in_a_pipe() -> None:
    done = subprocess.run(
        [*PROGRAM, "demo"], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "COLUMNS": "20"},
    )  # fmt: skip
    events = [line for line in done.stdout.splitlines()[2:] if line.strip()]
    assert all(re.match(r" *\d+\.\d\d s  [a-z-]+ +\S.*", line) for line in events)
    assert len(events) == 8


def test_what_failed_is_told_in_full_on_a_narrow_terminal(tmp_path: Path) -> None:
    command = [*PROGRAM, "doctor", "--kubelet-dir", "/no/such", *NODE, str(tmp_path / "c.json")]
    for width in (30, 80):
        lines = lines_of(command, width)
        words = " ".join(" ".join(lines).split())
        # Once where it was found, and once more below the summary.
        assert words.count("/no/such does not exist") >= 2, lines
        assert max(map(len, lines)) <= width
