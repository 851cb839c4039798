"""`serve` as the DaemonSet runs it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakehost import FakeHost
from tests.support.running import RESOURCE, Running, running, within


@dataclass
class Served:
    process: asyncio.subprocess.Process
    events: list[dict[str, Any]] = field(default_factory=list)

    async def until_event(self, name: str, **fields: object) -> dict[str, Any]:
        """Reads the log up to an event with these fields."""
        assert self.process.stderr is not None

        async def read() -> dict[str, Any]:
            assert self.process.stderr is not None
            while line := await self.process.stderr.readline():
                event: dict[str, Any] = json.loads(line)
                self.events.append(event)
                if event["event"] == name and fields.items() <= event.items():
                    return event
            raise AssertionError(f"the log ended without {name}: {self.events}")

        return await within(read(), f"{name} in the log")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(3):
            return await self.process.wait()


@asynccontextmanager
async def serve(it: Running, *flags: str, **env: str) -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "moffett_device_plugin", "serve",
        "--kubelet-dir", str(it.directory), "--log-format", "json",
        "--pod-resources-socket", "none",  # not the kubelet that this machine may have
        *flags,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **env},
    )  # fmt: skip
    try:
        yield Served(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def play(directory: Path, story: Any) -> None:
    async def run() -> None:
        async with running(directory) as it:
            await story(it)

    asyncio.run(run())


def test_from_start_to_sigterm(short_dir: Path) -> None:
    async def story(it: Running) -> None:
        async with serve(it, SPU_SIMULATE="2xS30") as served:
            await it.allocatable(6)
            await served.until_event("registered")
            assert await served.stop() == 0
            await served.until_event("stopped")
            await it.allocatable(0)
            assert it.own_sockets == []

    play(short_dir, story)


def test_after_sigkill_a_new_one_takes_over(short_dir: Path) -> None:
    async def story(it: Running) -> None:
        async with serve(it, "--simulate", "2xS30") as served:
            await it.allocatable(6)
            await served.stop(signal.SIGKILL)
            await it.allocatable(0)
        async with serve(it, "--simulate", "2xS30") as served:
            await it.allocatable(6)
            await served.until_event("stale-socket-removed")
            assert len(it.own_sockets) == 1

    play(short_dir, story)


def test_a_host_root_from_card_to_pod(short_dir: Path, host: FakeHost) -> None:
    ids = host.s30(0x34)
    host.control_node("spuctl")
    host.smi_table(*(f"{n}, {i}, 2023" for n, i in enumerate(ids)))

    async def story(it: Running) -> None:
        async with serve(it, "--host-root", str(host.root), "--recovery-seconds", "0.1") as served:
            await it.allocatable(3)
            pod = await it.kubelet.admit("pod", RESOURCE, 2)
            given = [(d.host_path, d.container_path) for d in pod.response.devices]
            assert given == [(p, p) for p in ("/dev/spu0", "/dev/spu1", "/dev/spuctl")]
            host.set(ids[2], "config", b"\xff" * 64)
            await it.allocatable(2)
            event = await served.until_event("device-unhealthy")
            assert (event["device"], event["reason"]) == (ids[2], "config-unreadable")
            host.set(ids[2], "config", bytes(64))
            await it.allocatable(3)
            host.remove(ids[2])
            await it.allocatable(2)
            assert it.kubelet.capacity(RESOURCE) == 3

    play(short_dir, story)


def test_an_old_sola_is_told_with_both_versions(short_dir: Path, host: FakeHost) -> None:
    host.s30(0x34)
    host.sola("3.4.2")

    async def story(it: Running) -> None:
        async with serve(it, "--host-root", str(host.root), "--recovery-seconds", "0") as served:
            event = await served.until_event("sola-too-old")
            assert (event["installed"], event["needed"]) == ("3.4.2", "3.5.0")
            await it.until(lambda: it.kubelet.capacity(RESOURCE) == 3)
            assert it.kubelet.allocatable(RESOURCE) == 0
            host.sola("3.5.1")
            await it.allocatable(3)

    play(short_dir, story)


def test_a_node_without_cards_waits_and_then_serves(short_dir: Path, host: FakeHost) -> None:
    async def story(it: Running) -> None:
        async with serve(it, "--host-root", str(host.root)) as served:
            await served.until_event("no-devices")
            host.function("0000:36:00.0")
            await it.allocatable(1)

    play(short_dir, story)


def test_the_simulated_node_is_broken_and_mended_from_outside(short_dir: Path) -> None:
    control = str(short_dir / "control" / "c.json")
    flags = ("--simulate", "2xS30", "--simulate-control", control)

    async def simulate(*words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "moffett_device_plugin", "simulate", *words, *flags
        )
        assert await within(process.wait()) == 0

    async def story(it: Running) -> None:
        async with serve(it, *flags, "--recovery-seconds", "0.1", "--mx-smi-interval", "0.5"):
            await it.allocatable(6)
            await simulate("inject", "0000:36:00.0", "ecc")
            await it.allocatable(5)
            await simulate("reboot", "0000:36:00.0", "--seconds", "0.1")
            await it.allocatable(6)

    play(short_dir / "kubelet", story)


def test_the_daemon_imports_nothing_that_it_does_not_need() -> None:
    """Each of these costs megabytes on every node; a stray import brings them back."""
    code = (
        "import sys; sys.modules['ssl'] = None; import moffett_device_plugin.commands.line,"
        " moffett_device_plugin.commands.serve, moffett_device_plugin.daemon,"
        " moffett_device_plugin.hardware.sysfs_hardware; print(' '.join(sys.modules))"
    )
    import subprocess

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    heavy = {"_hashlib", "_ssl", "rich", "random", "tempfile", "shutil", "grpc", "difflib"}
    assert not loaded & heavy
    assert "moffett_device_plugin.hardware.simulation" not in loaded
    assert not [name for name in loaded if name.startswith("moffett_device_plugin.dra")]


@pytest.mark.parametrize("as_json", [True, False])
def test_the_demo_tells_the_whole_story(as_json: bool) -> None:
    import subprocess

    command = [sys.executable, "-m", "moffett_device_plugin", "demo", *(["--json"] * as_json)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=True)
    names = [
        "discovered", "registered", "pod-admitted", "device-unhealthy", "card-rebooting",
        "card-recovered", "kubelet-restarted", "done",
    ]  # fmt: skip
    if as_json:
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert [event["event"] for event in events] == names
        counts = [event["allocatable"] for event in events if "allocatable" in event]
        assert counts == [6, 5, 3, 6, 6]
    else:
        assert [name for name in names if name in done.stdout] == names


def test_the_demo_without_a_place_for_files_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import tempfile

    from moffett_device_plugin.__main__ import main

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert main(["demo", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "set TMPDIR" in json.loads(line)["text"]
