"""Where news of devices comes from, and what happens when it does not come."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.monitor import Monitor, PollIntervals
from moffett_device_plugin.hardware import uevents
from moffett_device_plugin.hardware.event_sources import (
    FirstOf,
    InotifyEvents,
    NetlinkEvents,
    PollEvents,
    default_events,
)
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from tests.support.fakehost import FakeHost
from tests.support.running import on_a_loop, until, within

UEVENT = Path("/sys/class/mem/null/uevent")


@on_a_loop
async def test_the_kernels_own_synthetic_event_is_heard() -> None:
    """`change` is what udevadm trigger writes: it changes nothing."""
    if not uevents.reach():
        pytest.skip("uevents do not reach this network namespace")
    async with aclosing(NetlinkEvents().events()) as events:
        await anext(events)  # it listens now
        heard = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        try:
            UEVENT.write_text("change\n")
        except OSError as error:
            heard.cancel()
            pytest.skip(f"no synthetic uevents here: {error}")
        await within(heard, "event")


def test_a_network_namespace_of_another_user_namespace_is_known_to_hear_nothing() -> None:
    """As that of a pod with `hostUsers: false`."""
    source = "from moffett_device_plugin.hardware import uevents; print(uevents.reach())"
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout.strip() == "False"


@on_a_loop
async def test_where_netlink_hears_nothing_the_bus_is_polled_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("moffett_device_plugin.hardware.event_sources.reach", lambda: False)
    async with aclosing(FirstOf(NetlinkEvents(), PollEvents(0.01)).events()) as events:
        for _ in range(3):
            await within(anext(events), "poll")
    (record,) = caplog.records
    assert record.getMessage() == "event-source-unavailable"
    assert "network namespace" in record.error  # type: ignore[attr-defined]


@pytest.mark.parametrize("parts", [False, True])
def test_the_file_system_that_is_read_decides_the_source(
    host: FakeHost, parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With parts of the host mounted one by one, `sys` itself is an ordinary directory."""
    bus = host.sys / "bus/pci/devices"

    def file_system_of(path: Path, mounts: str) -> str:
        return "sysfs" if parts and path == bus else "ext4"

    where = "moffett_device_plugin.hardware.event_sources"
    monkeypatch.setattr(f"{where}.file_system_of", file_system_of)
    source = default_events(host.root)
    assert isinstance(source, FirstOf)
    assert type(source.sources[0]) is (NetlinkEvents if parts else InotifyEvents)


class Silent:
    """Events that never come, from a source that could be opened."""

    async def events(self) -> AsyncGenerator[None, None]:
        yield
        await asyncio.Event().wait()


@on_a_loop
async def test_a_change_that_no_event_announced_shows_that_events_are_missing(
    host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = host.s30(0x34)
    hardware = SysfsHardware(host.root, smi="", events=Silent())
    intervals = PollIntervals(
        registers=0.02, full_scan=0.2, without_events=0.02, event_delay=0.05, smi=1000
    )
    monitor = Monitor(hardware, HealthPolicy(), asyncio.get_running_loop().time, intervals)
    task = asyncio.ensure_future(monitor.run())

    def present(device_id: str) -> bool:
        return monitor.state.value.snapshot.by_id()[device_id].present

    try:
        await until(monitor.state, lambda: len(monitor.state.value.snapshot.devices) == 3)
        for chip in (first, second, third):
            host.remove(chip)
            await until(monitor.state, lambda gone=chip: not present(gone))  # type: ignore[misc]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    logged = [record.getMessage() for record in caplog.records]
    assert logged.count("bus-events-missing") == 1


@on_a_loop
async def test_events_that_come_are_not_missed(
    host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    """A poll that is quicker than the event does not count against it."""
    chips = host.s30(0x34)
    intervals = PollIntervals(registers=0.01, full_scan=0.01, event_delay=0.3, smi=1000)
    hardware = SysfsHardware(host.root, smi="", events=InotifyEvents(host.root))
    monitor = Monitor(hardware, HealthPolicy(), asyncio.get_running_loop().time, intervals)
    task = asyncio.ensure_future(monitor.run())
    try:
        await until(monitor.state, lambda: len(monitor.state.value.snapshot.devices) == 3)
        for chip in chips:
            host.remove(chip)
            await until(
                monitor.state,
                lambda gone=chip: not monitor.state.value.snapshot.by_id()[gone].present,  # type: ignore[misc]
            )
        await asyncio.sleep(0.5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert "bus-events-missing" not in [record.getMessage() for record in caplog.records]
