"""Nothing left to open: what the daemon takes that for, and what it says of it."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.monitor import Monitor
from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.registers import RegisterReader, Registers
from moffett_device_plugin.hardware.smi_command import launch_of
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.runtime.resource_exhausted import log_resource_exhaustion_once
from tests.support.fakehost import FakeHost
from tests.support.running import on_a_loop, within


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing: EMFILE for whatever it tries."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = [os.open("/dev/null", os.O_RDONLY)]
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, usual[1]))
    try:
        while True:
            try:
                fillers.append(os.dup(fillers[0]))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        for filler in fillers:
            os.close(filler)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@on_a_loop
async def test_devices_stay_as_they_are_while_nothing_can_be_opened(
    host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chips = host.s30(0x34)
    monitor = Monitor(SysfsHardware(host.root, smi=""), HealthPolicy(), time.monotonic)
    await monitor.rescan()
    before = monitor.state.value
    with no_descriptors():
        await monitor.rescan()
        await monitor.rescan()
        assert monitor.state.value is before
        assert all(before.healthy(chip) for chip in chips)
    host.remove(chips[0])
    await monitor.rescan()
    assert not monitor.state.value.healthy(chips[0])
    told = [event for event in events(caplog) if event.startswith("bus-")]
    assert told == ["bus-not-read", "bus-readable-again"]


def test_registers_are_read_again_when_there_are_descriptors_again(host: FakeHost) -> None:
    (chip, *_) = host.s30(0x34)
    registers = RegisterReader()
    with no_descriptors():
        registers.aim([str(host.sys / "bus/pci/devices" / chip)])
        assert registers.read(Look()) == {chip: Registers()}
    usual = registers.read(Look())
    assert usual[chip].config == b"\x36\x1f\x30\x70"
    host.set(chip, "config", b"\xff" * 64)
    assert registers.read(Look()) != usual
    registers.close()


def test_a_register_that_is_not_there_is_not_opened_again_each_time(tmp_path: Path) -> None:
    registers = RegisterReader()
    registers.aim([str(tmp_path)])
    assert registers.read(Look()) == {tmp_path.name: Registers()}
    (tmp_path / "config").write_bytes(b"1f36")
    assert registers.read(Look()) == {tmp_path.name: Registers()}  # an event announces it


def test_a_reader_that_nobody_has_any_more_leaves_no_file_open(host: FakeHost) -> None:
    chips = host.s30(0x34)
    registers = RegisterReader()
    before = set(os.listdir("/proc/self/fd"))
    registers.aim([str(host.sys / "bus/pci/devices" / chip) for chip in chips])
    registers.read(Look())
    assert set(os.listdir("/proc/self/fd")) - before
    del registers
    assert not set(os.listdir("/proc/self/fd")) - before


def test_mx_smi_does_not_count_as_uninstalled(host: FakeHost) -> None:
    host.smi_table("0, 0:36:00.0, 1")
    with no_descriptors():
        assert launch_of(host.root, None, can_chroot=False) is not None


class Greeter(asyncio.Protocol):
    served: asyncio.Event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.served.set()
        transport.close()


async def starve(path: Path, caplog: pytest.LogCaptureFixture, then: Callable[[], None]) -> None:
    """Connects to `path` while this process cannot accept, and calls `then` meanwhile."""
    with socket.socket(socket.AF_UNIX) as client:
        with no_descriptors():
            client.connect(str(path))
            while "exhausted" not in events(caplog):
                await asyncio.sleep(0.001)
            then()
        await within(Greeter.served.wait())


@on_a_loop
async def test_a_connection_that_cannot_be_accepted_is_told_once_and_served_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)
    caplog.set_level(logging.INFO)
    loop = asyncio.get_running_loop()
    log_resource_exhaustion_once(loop)
    Greeter.served = asyncio.Event()
    async with await loop.create_unix_server(Greeter, str(tmp_path / "socket")):
        await starve(tmp_path / "socket", caplog, lambda: None)
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.error == "Too many open files"  # type: ignore[attr-defined]


@on_a_loop
async def test_a_listener_that_was_closed_meanwhile_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)
    caplog.set_level(logging.INFO)
    loop = asyncio.get_running_loop()
    log_resource_exhaustion_once(loop)
    Greeter.served = asyncio.Event()
    server = await loop.create_unix_server(Greeter, str(tmp_path / "socket"))

    def close() -> None:
        server.close()
        loop.call_later(0.02, Greeter.served.set)  # after asyncio's own next try

    await starve(tmp_path / "socket", caplog, close)
    assert events(caplog) == ["exhausted"]


@on_a_loop
async def test_other_errors_that_nobody_holds_are_told_in_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    log_resource_exhaustion_once(loop)

    def fails() -> None:
        raise RuntimeError("a defect")

    loop.call_soon(fails)
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.exc_info is not None
