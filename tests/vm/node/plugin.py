"""The plugin under test: `moffett-device-plugin serve` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.shell import run

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / ".venv" / "bin" / "moffett-device-plugin"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A running plugin. `process` may be a command that became it by exec."""

    process: subprocess.Popen[bytes]
    log_file: Path
    started: float  # time.monotonic

    def log(self) -> list[dict[str, Any]]:
        """Return the events that it logged."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def cpu_seconds(self) -> float:
        """Return the processor time it used so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / _TICKS


@contextmanager
def running_plugin(
    directory: Path, log_file: Path, *arguments: str, prefix: Sequence[str | Path] = ()
) -> Iterator[Plugin]:
    """Run `serve` with these arguments until the block ends; it has to end as it should."""
    command = [*map(str, prefix), str(PROGRAM), "serve", "--log-format", "json"]
    command += ["--kubelet-dir", str(directory), "--pod-resources-socket", "none"]
    # Tests take the same chip away again and again.
    command += ["--flapping-seconds", "none", *arguments]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield Plugin(process, log_file, time.monotonic())
        assert process.poll() is None, f"it ended by itself, exit {process.returncode}"
    except BaseException:
        print(f"the plugin's log:\n{log_file.read_text()}")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert process.returncode == 0, f"exit {process.returncode}:\n{log_file.read_text()}"


def shown(bus_id: str) -> dict[str, Any]:
    """Return what the plugin's `devices` says of a device now."""
    devices = json.loads(run([PROGRAM, "devices", "--output", "json"], check=False).stdout)
    (found,) = (device for device in devices if device["id"] == bus_id)
    return dict(found)


def reasons(bus_id: str) -> set[str]:
    """Return the codes of all that it says against it."""
    return {reason["code"] for reason in shown(bus_id)["reasons"]}
