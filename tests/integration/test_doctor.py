"""The doctor beside a daemon and a kubelet, as a process of its own."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import sys
import tarfile
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from moffett_device_plugin.__main__ import main
from moffett_device_plugin.doctor import examine
from tests.support.fakehost import FakeHost
from tests.support.podresources import PodResources
from tests.support.running import RESOURCE, Running, running, simulated, within


def on_a_loop(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    @wraps(test)
    def run(short_dir: Path) -> None:
        asyncio.run(test(short_dir))  # type: ignore[arg-type]

    return run


async def doctor(directory: Path, *flags: str, **env: str) -> tuple[int, str, str]:
    """Its exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "moffett_device_plugin", "doctor",
        "--simulate", "2xS30", "--kubelet-dir", str(directory),
        "--simulate-control", str(directory / "control.json"), *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )  # fmt: skip
    out, err = await within(process.communicate(), "end of the doctor")
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def findings(directory: Path, *flags: str) -> dict[str, dict[str, Any]]:
    """The first finding of each check."""
    _, out, _ = await doctor(directory, "-o", "json", *flags)
    found: dict[str, dict[str, Any]] = {}
    for finding in json.loads(out)["findings"]:
        found.setdefault(finding["check"], finding)
    return found


def write_checkpoint(it: Running, ids: list[str]) -> None:
    text = json.dumps({"Data": {"RegisteredDevices": {RESOURCE: ids}}})
    (it.directory / "kubelet_internal_checkpoint").write_text(text)


@on_a_loop
async def test_a_missing_kubelet_directory_is_one_failure_and_one_reason(short_dir: Path) -> None:
    _, out, _ = await doctor(short_dir / "none", "--simulate-control", str(short_dir / "c.json"))
    *lines, counts, again = out.splitlines()
    assert [line for line in lines if line.startswith("fail")] == [again]
    assert " kubelet-dir " in again
    assert ", 1 failed, " in counts
    (skipped,) = [line for line in lines if "there is no directory" in line]
    for check in ("kubelet-socket", "stale-sockets", "plugin", "registration"):
        assert check in skipped


def test_a_bus_that_may_not_be_read_is_a_finding(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "sys/bus/pci/devices")

    (host.root / "sys/bus/pci/devices").rename(host.root / "sys/bus/pci/away")
    monkeypatch.setattr(examine, "create_hardware", refuse)
    assert main(["doctor", "--host-root", str(host.root)]) == 1
    assert "the PCI bus cannot be read" in capsys.readouterr().out


@on_a_loop
async def test_a_healthy_node_passes(short_dir: Path) -> None:
    directory = short_dir / "device-plugins"
    socket = short_dir / "pod-resources" / "kubelet.sock"
    socket.parent.mkdir()
    async with running(directory) as it:
        node = simulated()
        it.start_plugin(node)
        await it.allocatable(6)
        pod = await it.kubelet.admit("pod", RESOURCE, 2)
        write_checkpoint(it, [chip.bus_id for chip in node.layout.chips])
        answers = PodResources({"ml/pod/main": {RESOURCE: [pod.device_ids]}})
        async with answers.serving(socket):
            before = len(it.kubelet.registrations)
            code, out, err = await doctor(directory)
            assert (code, err) == (0, "")
            lines = out.splitlines()
            assert not [line for line in lines if line.startswith("fail")]
            assert [line for line in lines if line.startswith("pass  plugin ")]
            assert [line for line in lines if "2 of 6 devices held by 1 pod" in line]
            assert [line for line in lines if "6 healthy devices, as expected" in line]
            assert "\x1b" not in out
            # It asked as a kubelet does, and the plugin did not take it for one.
            assert len(it.kubelet.registrations) == before


@on_a_loop
async def test_a_list_is_asked_for_only_when_wanted(short_dir: Path) -> None:
    async with running(short_dir) as it:
        it.start_plugin(simulated())
        await it.allocatable(6)
        found = await findings(short_dir, "--list-and-watch")
        assert "lists 6 devices, 6 healthy" in found["plugin"]["found"]
        await it.until(lambda: len(it.kubelet.registrations) > 1)
        await it.allocatable(6)


@on_a_loop
async def test_a_plugin_that_is_not_there_fails(short_dir: Path) -> None:
    async with running(short_dir):
        code, out, _ = await doctor(short_dir)
        assert code == 1
        assert f"{RESOURCE}: no plugin serves it" in out


@on_a_loop
async def test_two_instances_of_the_plugin_are_a_warning(short_dir: Path) -> None:
    async with running(short_dir) as it:
        it.start_plugin(simulated())
        await it.allocatable(6)
        second = it.start_plugin(simulated())
        await it.until(lambda: len(it.kubelet.registrations) > 1)
        found = await findings(short_dir)
        assert found["plugin"]["level"] == "warn"
        assert found["plugin"]["found"].startswith("2 instances of the plugin serve it")
        await it.stop_plugin(second)
        await it.until(lambda: len(it.kubelet.registrations) > 2)
        assert (await findings(short_dir))["plugin"]["level"] == "pass"


@on_a_loop
async def test_a_plugin_that_hangs_is_found_within_its_deadline(short_dir: Path) -> None:
    """A socket that accepts and says nothing, as a stopped process does."""
    from moffett_device_plugin.deviceplugin.socket_names import new_socket_name

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = short_dir / new_socket_name(RESOURCE)
    server = await asyncio.start_unix_server(silent, path)
    found = await findings(short_dir)
    assert found["plugin"]["level"] == "fail"
    assert "DEADLINE_EXCEEDED" in found["plugin"]["found"]
    server.close()


@on_a_loop
async def test_an_unhealthy_device_that_a_pod_holds_fails(short_dir: Path) -> None:
    directory = short_dir / "device-plugins"
    socket = short_dir / "pod-resources" / "kubelet.sock"
    socket.parent.mkdir()
    directory.mkdir()
    (directory / "control.json").write_text('{"faults": {"0000:36:00.0": ["ecc"]}}')
    pods = PodResources({"ml/train-0/main": {RESOURCE: [["0000:36:00.0"]]}})
    async with pods.serving(socket):
        found = await findings(directory)
        assert found["held-devices"]["level"] == "fail"
        assert "ml/train-0" in found["held-devices"]["found"]
        assert found["health"]["subjects"] == ["0000:36:00.0"]


@on_a_loop
async def test_a_wrong_flag_is_usage_and_a_wrong_variable_is_not(short_dir: Path) -> None:
    code, _, _ = await doctor(short_dir, "--log-level", "loud")
    assert code == 2
    code, out, _ = await doctor(short_dir, SPU_LOG_LEVEL="loud")
    assert code == 1
    assert "SPU_LOG_LEVEL: 'loud' is not valid" in out


@on_a_loop
async def test_json_stays_json_beside_a_bundle(short_dir: Path) -> None:
    target = short_dir / "b.tgz"
    _, out, err = await doctor(short_dir, "-o", "json", "--bundle", str(target))
    assert json.loads(out)["findings"]
    assert "doctor.json" in err
    assert target.stat().st_size > 1000


@on_a_loop
async def test_a_bundle_on_standard_output_has_it_for_itself(short_dir: Path) -> None:
    """As `kubectl exec` passes it on, with the log on standard input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "moffett_device_plugin", "doctor",
        "--simulate", "1xS4", "--kubelet-dir", str(short_dir),
        "--bundle", "-", "--log", "/dev/stdin",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await within(process.communicate(b"event=starting\n"), "end of the doctor")
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        log = archive.extractfile("moffett-doctor/log.txt")
        assert log is not None
        assert log.read() == b"event=starting\n"
    assert b"kubelet-socket" in err
