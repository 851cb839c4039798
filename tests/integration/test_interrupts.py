"""A command that is ended early, at any moment from its first import on: no traceback, and
nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

NODE = ["--simulate", "2xS30", "--simulate-control"]
COMMANDS = {
    "devices": ["devices", *NODE, "{control}"],
    "top": ["top", "--pod-resources-socket", "none", *NODE, "{control}"],
    "explain": ["explain", "--size", "2", "--pod-resources-socket", "none", *NODE, "{control}"],
    "doctor": ["doctor", "--bundle", "{control}.tgz", *NODE, "{control}"],
    "simulate": ["simulate", "inject", "0000:36:00.0", "ecc", *NODE, "{control}"],
    "config": ["config", "show"],
    "demo": ["demo"],
    "serve": ["serve", "--kubelet-dir", "{control}.kubelet", *NODE, "{control}"],
}
#: Python runs it before the program: it counts what the program imports and opens, and at
#: the given count sends the signal to itself.
HOOK = """
import os, sys
left, number = int(os.environ["MOMENT"]), int(os.environ["SIGNAL"])
begun = False
def count(event, arguments):
    global left, begun
    if event == "import" and str(arguments[0]).startswith("moffett_device_plugin."):
        begun = True
    if begun and event in ("import", "open", "socket.connect", "socket.bind"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)
sys.addaudithook(count)
"""
#: Spread over the whole of a short command, and over the start of a long one.
MOMENTS = (1, 20, 60, 120, 200, 300, 450)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_ended_leaves_no_traceback_and_no_file(
    name: str, short_dir: Path
) -> None:
    (short_dir / "sitecustomize.py").write_text(HOOK)
    files, temporary = short_dir / "files", short_dir / "tmp"
    files.mkdir()
    temporary.mkdir()
    (files / "c.kubelet").mkdir()
    command = [word.format(control=files / "c") for word in COMMANDS[name]]
    ended = 0
    for turn, moment in enumerate(MOMENTS):
        number = (signal.SIGINT, signal.SIGTERM)[turn % 2]
        done = subprocess.run(
            [sys.executable, "-m", "moffett_device_plugin", *command],
            capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "PYTHONPATH": str(short_dir), "TMPDIR": str(temporary),
                 "MOMENT": str(moment), "SIGNAL": str(number.value)},
        )  # fmt: skip
        assert "Traceback" not in done.stderr, (moment, done.stderr)
        assert "Exception" not in done.stderr, (moment, done.stderr)
        assert list(temporary.iterdir()) == [], moment
        assert {path.name for path in files.iterdir()} <= {"c", "c.kubelet", "c.tgz"}
        assert list((files / "c.kubelet").iterdir()) == [], moment
        ended += done.returncode in (128 + number, -number)
        # The daemon ends as it should when it is told to; a short command had ended before.
        assert done.returncode in (0, 1, 128 + number, -number), (moment, done.stderr)
    assert ended
