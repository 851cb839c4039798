"""A read of the hardware that the kernel holds: a named pipe stands where the register is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Device
from moffett_device_plugin.devices.monitor import Monitor, PollIntervals
from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.reader import OverdueError, Reader
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from tests.support.fakehost import FakeHost
from tests.support.running import RESOURCE, on_a_loop, running, until, within

#: Polls so slow that nothing is seen by them while a test runs, and a short deadline.
INTERVALS = PollIntervals(registers=0.02, full_scan=1000, smi=1000, deadline=0.1)


class HeldRegister:
    """`config` of a function, of which no read ends until `release`."""

    def __init__(self, host: FakeHost, bus_id: str) -> None:
        self._file = host.sys / "bus/pci/devices" / bus_id / "config"
        self._content = self._file.read_bytes()
        self._pipe = host.root / f"held-{bus_id}"
        os.mkfifo(self._pipe)
        os.link(self._pipe, self._file.with_name("new"))
        self._file.with_name("new").replace(self._file)

    def release(self) -> None:
        new = self._file.with_name("new")
        new.write_bytes(self._content)
        new.replace(self._file)
        os.close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))


def monitor_of(host: FakeHost) -> Monitor:
    hardware = SysfsHardware(host.root, smi="")
    return Monitor(hardware, HealthPolicy(recovery_seconds=0.01), lambda: 0.0, INTERVALS)


def device(monitor: Monitor, device_id: str) -> Device:
    return monitor.state.value.snapshot.by_id()[device_id]


@on_a_loop
async def test_a_register_that_is_held_concerns_its_own_device_only(
    host: FakeHost, short_dir: Path
) -> None:
    held, *others = host.s30(0x34)
    async with running(short_dir) as it:
        daemon = it.start_plugin(SysfsHardware(host.root, smi=""), intervals=INTERVALS)
        await it.allocatable(3)
        register = HeldRegister(host, held)
        await it.allocatable(2)
        statuses = daemon.monitor.state.value.health_statuses
        assert statuses[held].codes == {"not-responding"}
        pod = await it.kubelet.admit("pod", RESOURCE, 2)
        assert set(pod.device_ids) == set(others)
        host.remove(others[0])
        await it.allocatable(1)
        register.release()
        await it.allocatable(2)


@on_a_loop
async def test_a_device_that_never_responded_is_listed_and_says_so(host: FakeHost) -> None:
    held, *others = host.s30(0x34)
    register = HeldRegister(host, held)
    monitor = monitor_of(host)
    await monitor.rescan()
    state = monitor.state.value
    assert state.health_statuses[held].codes == {"not-responding"}
    assert all(state.healthy(other) for other in others)
    register.release()
    await monitor.rescan()


@on_a_loop
async def test_all_chips_of_a_card_can_be_held_at_once(host: FakeHost) -> None:
    chips, (other, *_) = host.s30(0x34), host.s30(0x3A)
    for chip in chips:
        HeldRegister(host, chip)
    monitor = monitor_of(host)
    await monitor.rescan()
    state = monitor.state.value
    assert [state.healthy(chip) for chip in chips] == [False] * 3
    assert state.healthy(other)


@on_a_loop
async def test_looks_that_wait_for_each_other_are_one(host: FakeHost) -> None:
    """Many containers that start at the same time cost two looks, not one each."""
    host.s30(0x34)
    monitor = monitor_of(host)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(monitor.rescan())
    assert monitor.state.value.snapshot.scan == 2


@on_a_loop
async def test_a_look_begins_after_the_call_that_asks_for_it(host: FakeHost) -> None:
    (chip, *_) = host.s30(0x34)
    monitor = monitor_of(host)
    await monitor.rescan()
    first = asyncio.ensure_future(monitor.rescan())
    await asyncio.sleep(0)  # it has begun
    host.remove(chip)
    await monitor.rescan()
    assert not device(monitor, chip).present
    await first


@on_a_loop
async def test_an_overdue_look_says_where_it_stands_and_does_not_hold_up_the_next() -> None:
    reader, (read_end, write_end) = Reader(), os.pipe()

    def hangs(look: Look) -> bytes:
        look.begin("0000:36:00.0")
        return os.read(read_end, 1)

    with pytest.raises(OverdueError) as caught:
        await reader.read(hangs, Look(), 0.05)
    assert caught.value.reading == "0000:36:00.0"
    assert await within(reader.read(lambda look: "next", Look(), 5.0)) == "next"
    assert not caught.value.ended.done()
    os.write(write_end, b"x")
    assert await within(caught.value.ended) == b"x"
    reader.close()
    os.close(read_end)
    os.close(write_end)


@on_a_loop
async def test_what_a_look_raises_is_raised_where_it_is_awaited() -> None:
    def fails(look: Look) -> None:
        raise OSError(24, "Too many open files")

    reader = Reader()
    with pytest.raises(OSError, match="Too many"):
        await reader.read(fails, Look(), 5.0)
    reader.close()


@on_a_loop
async def test_a_read_that_hangs_does_not_keep_the_process_from_ending(
    host: FakeHost, short_dir: Path
) -> None:
    held, *_ = host.s30(0x34)
    HeldRegister(host, held)
    async with running(short_dir) as it:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "moffett_device_plugin", "serve",
            "--host-root", str(host.root), "--kubelet-dir", str(short_dir),
        )  # fmt: skip
        try:
            await it.allocatable(2)
            process.send_signal(signal.SIGTERM)
            assert await within(process.wait(), "end") == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@on_a_loop
async def test_the_check_before_a_container_starts_is_not_answered_by_an_older_look(
    host: FakeHost,
) -> None:
    """And while a register is held, it waits no longer than the deadline."""
    held, *_ = host.s30(0x34)
    monitor = monitor_of(host)
    await monitor.rescan()
    assert monitor.state.value.healthy(held)
    HeldRegister(host, held)
    await monitor.rescan()
    assert not monitor.state.value.healthy(held)
    await until(monitor.state, lambda: device(monitor, held).overdue)
