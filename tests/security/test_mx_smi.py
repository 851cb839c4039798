"""What mx-smi, or a program in its place, can do to the daemon: nothing but answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from moffett_device_plugin.devices.inventory import observe_smi
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware import SmiError
from moffett_device_plugin.hardware.elf import interpreter_of
from moffett_device_plugin.hardware.mxsmi import GarbageError, parse_select
from moffett_device_plugin.hardware.process import MAX_OUTPUT, CommandError, Runner
from moffett_device_plugin.hardware.smi_command import SmiCommand, launch_of
from moffett_device_plugin.metrics.exposition import render
from moffett_device_plugin.metrics.families import collect
from moffett_device_plugin.metrics.view import View
from moffett_device_plugin.runtime.counters import Counters
from tests.security.limits import an_end
from tests.support.fakehost import FakeHost
from tests.support.values import state_of


def asked(host: FakeHost, deadline: float = 30.0) -> SmiCommand:
    return SmiCommand(lambda: launch_of(host.root, None, can_chroot=False), deadline)


def installed(host: FakeHost, script: str) -> None:
    host.smi(script + "\nprintf 'index, pci.bus_id\\n0, 0:36:00.0\\n'\n")


def test_it_is_run_by_its_path_and_nothing_in_path_takes_its_place(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(host, "")
    trap = tmp_path / "bin/mx-smi"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/trapped\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{trap.parent}:{os.environ['PATH']}")
    assert len(asyncio.run(asked(host).query()).devices) == 1
    assert not (tmp_path / "trapped").exists()


def test_no_shell_reads_what_it_is_told(tmp_path: Path) -> None:
    program = tmp_path / "smi"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\nexit 1\n')
    program.chmod(0o755)
    words = "'$(touch trapped)' ';' '`touch trapped`' '|' '*'"
    launch = launch_of(Path("/"), f"{program} {words}", can_chroot=False)
    with pytest.raises(SmiError):
        asyncio.run(SmiCommand(lambda: launch, 30.0).query())
    told = (tmp_path / "words").read_text().splitlines()
    assert told[:5] == ["$(touch trapped)", ";", "`touch trapped`", "|", "*"]
    assert not Path("trapped").exists()


def test_it_gets_no_environment_but_what_it_needs_to_run(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(host, f"env > {tmp_path}/environment")
    monkeypatch.setenv("HTTPS_PROXY", "http://joe:hunter2@proxy")
    monkeypatch.setenv("LD_PRELOAD_PATH", "x")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    asyncio.run(asked(host).query())
    lines = (tmp_path / "environment").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines}
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert names - of_the_shell <= {"PATH", "HOME", "LD_LIBRARY_PATH", "LC_ALL"}
    assert "LC_ALL=C" in lines


def test_it_inherits_no_file_of_ours_and_reads_nothing(host: FakeHost, tmp_path: Path) -> None:
    installed(host, f"for fd in /proc/$$/fd/*; do readlink $fd; done > {tmp_path}/files; cat")
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        asyncio.run(asked(host).query())
    files = (tmp_path / "files").read_text()
    assert str(tmp_path / "ours") not in files
    assert "/dev/null" in files
    assert "socket:" not in files


@pytest.mark.parametrize("path", ["usr/bin/mx-smi", "etc/ld.so.conf.d/sola.conf"])
def test_a_pipe_in_a_files_place_is_not_waited_for(host: FakeHost, path: str) -> None:
    pipe = host.root / path
    pipe.parent.mkdir(parents=True, exist_ok=True)
    if path.startswith("etc"):  # asked of programs that need the host's loader
        program = host.root / "usr/bin/mx-smi"
        program.write_bytes(Path(sys.executable).resolve().read_bytes()[:4096])
        program.chmod(0o755)
        interpreter = interpreter_of(program)
        assert interpreter is not None
        loader = host.root / interpreter.path.lstrip("/")
        loader.parent.mkdir(parents=True, exist_ok=True)
        loader.touch()
    os.mkfifo(pipe)
    pipe.chmod(0o755)
    with an_end():
        launch = launch_of(host.root, None, can_chroot=False)
    assert launch is not None
    if path.startswith("usr"):
        with pytest.raises(SmiError, match="cannot run"):
            asyncio.run(asked(host).query())
    else:
        assert "--library-path" in launch.argv


def test_a_flood_is_cut_off(host: FakeHost) -> None:
    host.smi("exec yes")
    with pytest.raises(SmiError, match=f"over {MAX_OUTPUT} bytes of output"):
        asyncio.run(asked(host).query())


def test_a_child_that_left_its_group_holds_nothing_of_ours(host: FakeHost, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    host.smi(f"setsid sleep 60 &\necho $! >> {pids}\n")

    async def run() -> None:
        runner = Runner()
        command = [str(host.root / "usr/bin/mx-smi")]
        counts = []
        for _ in range(4):
            with pytest.raises(CommandError, match="no end after"):  # the pipe is still open
                await runner.run(command, 0.3)
            counts.append(len(os.listdir("/proc/self/fd")))
        # Fewer when the garbage of an earlier test is collected in between.
        assert counts[-1] <= counts[0]

    try:
        asyncio.run(run())
    finally:
        for pid in pids.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * MAX_OUTPUT + "b",
        "pci.bus_id" + ", a" * (MAX_OUTPUT // 3),
        "pci.bus_id, index\n0:36:00.0, " + "1" * MAX_OUTPUT,
        "pci.bus_id, index\n0:36:00.0, 1" + " " * MAX_OUTPUT + "x",
        "pci.bus_id, name\n0:36:00.0, 01S1" + "1" * MAX_OUTPUT,
        "[" * MAX_OUTPUT,
        "\n" * MAX_OUTPUT,
    ],
    ids=["spaces", "columns", "digits", "unit", "name", "brackets", "lines"],
)
def test_no_text_keeps_the_parser_busy(text: str) -> None:
    with an_end():
        try:
            parse_select(text)
        except GarbageError as error:
            assert len(str(error)) < 500


def test_no_number_is_too_large_for_what_comes_after() -> None:
    state = state_of("1xS4")
    (device,) = state.snapshot.devices
    numbers = ["9" * 400, "9" * 30, "-1", "1e9", "0." + "9" * 400]
    names = ("memory.total", "temperature", "power.draw", "cores", "index")
    for number in numbers:
        row = ", ".join([device.function.bus_id, *(number for _ in names)])
        report = parse_select("\n".join([", ".join(["pci.bus_id", *names]), row]))
        seen = observe_smi(state.snapshot, report, state.snapshot.scan)
        now = NodeState(seen, state.health_statuses, settled=True)
        assert "".join(render(collect(View(now, Counters(), 0.0, 0.0)), "text"))


def test_what_it_lists_beyond_the_bus_is_no_device() -> None:
    state = state_of("1xS4")
    rows = "\n".join(f"0:{bus:02x}:00.0" for bus in range(256))
    seen = observe_smi(state.snapshot, parse_select("pci.bus_id\n" + rows), state.snapshot.scan)
    assert [d.id for d in seen.devices] == [d.id for d in state.snapshot.devices]
