"""A node for the documents' commands: a simulated 2xS30, a kubelet stand-in that has given
two chips to the pod ml/train-0, and the daemon. In a thread, so that commands can be run
beside it as processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.hardware.simulation import build, parse_spec
from tests.support.podresources import PodResources
from tests.support.running import RESOURCE, Running, running

from .documents import ROOT

SPEC = "2xS30"
PROGRAM = "moffett-device-plugin"
CONFORM = "device-plugin-conform"
MODULES = {PROGRAM: "moffett_device_plugin", CONFORM: "device_plugin_conformance"}


@dataclass(frozen=True)
class Node:
    """Where it is, and how to type a command there."""

    directory: Path
    work: Path
    loop: asyncio.AbstractEventLoop
    running: Running

    @property
    def env(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SPU_", "NODE_"))}
        return inherited | {
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "COLUMNS": "200",
            "SPU_SIMULATE": SPEC,
            "SPU_SIMULATE_CONTROL": str(self.directory / "control.json"),
            "SPU_KUBELET_DIR": str(self.directory / "device-plugins"),
            "SPU_POD_RESOURCES_SOCKET": str(self.directory / "pod-resources/kubelet.sock"),
        }

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Runs the line in a shell, in a directory of its own; stderr joins stdout."""
        return subprocess.run(
            ["sh", "-ec", line], cwd=self.work, env=self.env, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait_for_healthy(self, number: int, without: str | None = None) -> None:
        """Until the kubelet was told of so many; its checkpoint is then as a kubelet would
        have written it."""
        waiting = self.running.allocatable(number)
        asyncio.run_coroutine_threadsafe(waiting, self.loop).result(20)
        ids = [chip.bus_id for chip in build(parse_spec(SPEC)).chips if chip.bus_id != without]
        checkpoint = {"Data": {"RegisteredDevices": {RESOURCE: ids}}}
        file = self.running.directory / "kubelet_internal_checkpoint"
        file.write_text(json.dumps(checkpoint))


@contextmanager
def node(directory: Path, work: Path) -> Iterator[Node]:
    binaries = directory / "bin"
    binaries.mkdir()
    for name, module in MODULES.items():
        program = binaries / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    (work / "run").symlink_to(binaries / PROGRAM)
    for name in ("docs", "deploy", "bench", "tests"):
        (work / name).symlink_to(ROOT / name)
    ready: list[Node] = []
    started, done = threading.Event(), asyncio.Event()
    failures: list[BaseException] = []

    async def live() -> None:
        socket = directory / "pod-resources" / "kubelet.sock"
        socket.parent.mkdir()
        async with running(directory / "device-plugins") as it:
            hardware = SimulatedNode(build(parse_spec(SPEC)), directory / "control.json")
            it.start_plugin(hardware, pod_resources=socket)
            await it.allocatable(6)
            pod = await it.kubelet.admit("train-0", RESOURCE, 2)
            answers = PodResources({"ml/train-0/main": {RESOURCE: [pod.device_ids]}})
            async with answers.serving(socket):
                ready.append(Node(directory, work, asyncio.get_running_loop(), it))
                started.set()
                await done.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(30)
    try:
        if ready:
            ready[0].wait_for_healthy(6)
            yield ready[0]
    finally:
        if ready:
            ready[0].loop.call_soon_threadsafe(done.set)
        thread.join(30)
    if failures:
        raise failures[0]
