"""The plugin's processes: start, stop, memory and processor time from /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """MiB, summed over a plugin's processes."""

    rss: float
    private_dirty: float


@dataclass(frozen=True, slots=True)
class Running:
    """A plugin that was started: its process, and when (time.perf_counter)."""

    process: subprocess.Popen[bytes]
    at: float

    @property
    def pid(self) -> int:
        return self.process.pid


@contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator[Running]:
    """The plugin for as long as the context lasts; its output goes to `log`."""
    with log.open("wb") as output:
        at = time.perf_counter()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield Running(process, at)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes], timeout: float = 5.0) -> None:
    _signal(process, signal.SIGTERM)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        pass
    _signal(process, signal.SIGKILL)  # also the processes that it left
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def tree(root: int) -> list[int]:
    """The process and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (stat := _stat(int(path.name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(path.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def memory(root: int) -> MemoryUse:
    """The processes' resident and private dirty memory now."""
    rss = dirty = 0
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it ended between the two reads
            continue
        values = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        rss += values["Rss"]
        dirty += values["Private_Dirty"]
    return MemoryUse(rss / 1024, dirty / 1024)


def peak_rss(root: int) -> float:
    """The most memory that the plugin's first process ever held, in MiB."""
    for line in Path(f"/proc/{root}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(root: int) -> float:
    """Processor time of the live processes, and of the children they waited for."""
    total = 0
    for pid in tree(root):
        if (stat := _stat(pid)) is not None:
            total += sum(int(field) for field in stat[11:15])
    return total * _TICK


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on (the state)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
