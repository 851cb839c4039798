"""The cluster's processes: starting, stopping and killing them one by one."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .layout import Layout
from .shell import wait_for

STOP_SECONDS = 20.0


def inside(layout: Layout, command: Sequence[str | Path]) -> list[str]:
    """Return a command that runs in the cluster's network namespace.

    Only the network is separate: mounts and cgroups stay the machine's.
    """
    return ["nsenter", f"--net={layout.network_namespace}", "--", *map(str, command)]


@dataclass(slots=True)
class Services:
    """The running services of one cluster."""

    layout: Layout
    commands: Mapping[str, Sequence[str]]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a service; its output is appended to its log."""
        if self.alive(name):
            raise RuntimeError(f"{name} runs already")
        with self.log(name).open("ab") as log:
            # Should the test process be killed, its services go with it; what they leave
            # behind is cleared by the next run.
            bound = ["setpriv", "--pdeathsig=KILL", "--", *self.commands[name]]
            self._running[name] = subprocess.Popen(
                inside(self.layout, bound),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a service by a signal and wait until it is gone."""
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """Kill every service: their state is about to be deleted anyway."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def alive(self, name: str) -> bool:
        """Tell whether a service runs."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def processes(self) -> set[int]:
        """Return the ids of the services that run."""
        return {process.pid for name, process in self._running.items() if self.alive(name)}

    def dead(self) -> list[str]:
        """Return the services that were started and ended by themselves."""
        return [name for name in self._running if not self.alive(name)]

    def log(self, name: str) -> Path:
        """Return a service's log file."""
        return self.layout.logs / f"{name}.log"

    def wait_for_log(self, name: str, text: str, *, after: int, seconds: float) -> None:
        """Wait for a line in a service's log, beyond byte ``after`` of it."""
        wait_for(
            f"{text!r} in the log of {name}",
            lambda: text.encode() in self.log(name).read_bytes()[after:],
            seconds=seconds,
        )
