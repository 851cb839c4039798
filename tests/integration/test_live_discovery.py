"""Changes of a running host, seen without a restart and without waiting for a poll."""

from __future__ import annotations

import asyncio
import mmap
import os
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Device
from moffett_device_plugin.devices.monitor import Monitor, PollIntervals
from moffett_device_plugin.hardware import Look, uevents
from moffett_device_plugin.hardware.event_sources import (
    EventSource,
    FirstOf,
    InotifyEvents,
    PollEvents,
)
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from tests.support.fakehost import FATAL, FakeHost
from tests.support.running import until

CHIP = "0000:36:00.0"
#: Polls so slow that nothing is seen by them while a test runs.
ONLY_EVENTS = PollIntervals(registers=1000, full_scan=1000, smi=1000)


class Watched:
    def __init__(
        self, host: FakeHost, intervals: PollIntervals, events: EventSource | None = None
    ) -> None:
        policy = HealthPolicy(recovery_seconds=0.05)
        hardware = SysfsHardware(host.root, smi_deadline=2, events=events)
        self.monitor = Monitor(hardware, policy, time.monotonic, intervals)

    def device(self, device_id: str = CHIP) -> Device | None:
        return self.monitor.state.value.snapshot.by_id().get(device_id)

    def codes(self, device_id: str = CHIP) -> frozenset[str]:
        return self.monitor.state.value.health_statuses[device_id].codes

    def healthy(self, device_id: str = CHIP) -> bool:
        return self.monitor.state.value.healthy(device_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(self.monitor.state, condition)


def watch(
    host: FakeHost,
    play: Callable[[Watched], Awaitable[None]],
    intervals: PollIntervals = ONLY_EVENTS,
    events: EventSource | None = None,
) -> None:
    async def run() -> None:
        watched = Watched(host, intervals, events)
        task = asyncio.ensure_future(watched.monitor.run())
        try:
            await watched.until(lambda: watched.monitor.state.value.settled)
            await asyncio.sleep(0)  # the watches are set by now
            await play(watched)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


@pytest.fixture(params=["inotify", "poll", "fallback"])
def by(request: pytest.FixtureRequest, host: FakeHost) -> EventSource:
    """How the host is watched: all ways have to show the same."""
    return {
        "inotify": InotifyEvents(host.root),
        "poll": PollEvents(0.02),
        "fallback": FirstOf(Unavailable(), PollEvents(0.02)),
    }[request.param]


class Unavailable:
    async def events(self) -> AsyncGenerator[None, None]:
        raise OSError(24, "Too many open files")
        yield


def test_functions_leave_and_come_back(host: FakeHost, by: EventSource) -> None:
    host.s30(0x34)

    async def play(node: Watched) -> None:
        host.remove(CHIP)
        await node.until(lambda: node.codes() == {"bus-gone"})
        assert node.healthy("0000:37:00.0")
        host.function(CHIP, ("pci0000:33", "0000:33:14.0", "0000:34:00.0", "0000:35:00.0"))
        await node.until(node.healthy)
        device = node.device()
        assert device is not None
        assert [n.host_path for n in device.function.nodes] == ["/dev/spu3"], "its new node"

    watch(host, play, events=by)


def test_the_first_card_of_a_node(host: FakeHost, by: EventSource) -> None:
    async def play(node: Watched) -> None:
        assert node.device() is None
        host.function(CHIP)
        await node.until(node.healthy)

    watch(host, play, events=by)


def test_a_whole_bus_that_appears_later(host: FakeHost) -> None:
    shutil.rmtree(host.sys / "bus")

    async def play(node: Watched) -> None:
        (host.sys / "bus/pci/devices").mkdir(parents=True)
        (host.sys / "bus/pci/drivers").mkdir()
        host.function(CHIP)
        await node.until(node.healthy)

    watch(host, play)


def test_a_function_that_is_listed_before_its_files_are_there(host: FakeHost) -> None:
    path = host.function(CHIP)
    aside = path.with_name("aside")
    (host.sys / "bus/pci/devices" / CHIP).unlink()
    path.rename(aside)

    async def play(node: Watched) -> None:
        path.mkdir()
        host.link(path)
        await node.until(lambda: node.monitor.state.value.snapshot.scan > 0)
        for entry in sorted(aside.iterdir()):
            entry.rename(path / entry.name)
        await node.until(node.healthy)

    watch(host, play)


def test_driver_and_node_come_after_the_function(host: FakeHost, by: EventSource) -> None:
    path = host.function(CHIP, driver=None, node=None)

    async def play(node: Watched) -> None:
        assert node.codes() == {"no-driver", "no-device-node"}
        host.bind(path, "moffett")
        await node.until(lambda: "no-driver" not in node.codes())
        host.node(path, "spu9")
        await node.until(node.healthy)

    watch(host, play, events=by)


@pytest.mark.parametrize("name", ["config", "aer_dev_fatal"])
def test_what_no_event_announces_is_seen_by_polling(host: FakeHost, name: str) -> None:
    """Written through a mapping, which causes no event, as on a real bus."""
    path = host.function(CHIP)
    bad = b"\xff" * 4 if name == "config" else FATAL.format(n=1).encode()

    def write(content: bytes) -> None:
        with (path / name).open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[: len(content)] = content

    good = (path / name).read_bytes()

    async def play(node: Watched) -> None:
        write(bad)
        await node.until(lambda: not node.healthy())
        write(good)
        await node.until(node.healthy)

    watch(host, play, PollIntervals(registers=0.02, full_scan=1000, smi=1000))


def test_mx_smi_is_asked_when_a_card_comes_up(host: FakeHost) -> None:
    ids = host.s30(0x34)
    rows = [f"{n}, {bus_id}, 2023" for n, bus_id in enumerate(ids)]
    host.smi_table(*rows)

    async def play(node: Watched) -> None:
        device = node.device()
        assert device is not None
        assert device.serial == "2023"
        host.remove(CHIP)
        await node.until(lambda: not node.healthy())
        host.smi_table(*rows[1:])  # its firmware is not loaded yet
        host.function(CHIP, ("pci0000:33", "0000:33:14.0", "0000:34:00.0", "0000:35:00.0"))
        await node.until(lambda: "firmware-not-loaded" in node.codes())

    watch(host, play)


def test_a_hanging_mx_smi_does_not_hold_up_the_bus(host: FakeHost) -> None:
    host.s30(0x34)
    host.smi("sleep 100")

    async def play(node: Watched) -> None:
        assert node.healthy()
        host.remove(CHIP)
        await node.until(lambda: "bus-gone" in node.codes())

    watch(host, play, PollIntervals(registers=1000, full_scan=1000, smi=1000, smi_at_start=0.05))


def test_a_broken_mx_smi_is_told_once(host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    host.s30(0x34)
    host.smi("date +%N; exit 1")  # never the same text twice

    async def play(node: Watched) -> None:
        await node.until(lambda: node.monitor.state.value.snapshot.smi.runs_failed >= 4)
        assert node.healthy()
        host.smi_table("0, 0:36:00.0, 1", "1, 0:37:00.0, 1", "2, 0:38:00.0, 1")
        await node.until(lambda: node.monitor.state.value.snapshot.smi.answered)

    watch(host, play, PollIntervals(registers=1000, full_scan=1000, smi=0.01))
    told = [record.message for record in caplog.records]
    assert told.count("mx-smi-failed") == 1


def test_nothing_is_logged_while_nothing_changes(
    host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    host.s30(0x34)
    counter = host.root / "count"
    counter.write_text("40")
    host.smi(  # the temperature moves with every run
        f"n=$(($(cat {counter}) + 1)); echo $n > {counter};"
        ' echo "pci.bus_id, temperature"; for b in 36 37 38; do echo "0:$b:00.0, $n"; done'
    )

    async def play(node: Watched) -> None:
        await node.until(lambda: int(counter.read_text() or 0) > 42)
        before = len(caplog.records)
        await node.until(lambda: int(counter.read_text() or 0) > 48)
        assert [r.message for r in caplog.records[before:]] == []

    watch(host, play, PollIntervals(registers=0.01, full_scan=0.02, smi=0.01))


def test_the_kernels_own_events_can_be_heard() -> None:
    """On this very machine: netlink is open to anyone, in any network namespace."""
    try:
        with uevents.open_uevents() as sock:
            assert sock.getblocking() is False
    except OSError as error:
        pytest.skip(f"no netlink here: {error}")


@pytest.mark.parametrize(
    ("message", "concerned"),
    [
        (b"remove@/devices/pci0000:33/0000:36:00.0\0ACTION=remove\0SUBSYSTEM=pci\0", True),
        (b"add@/x\0ACTION=add\0SUBSYSTEM=moffett\0DEVNAME=spu0\0MAJOR=240\0", True),
        (b"change@/x\0SUBSYSTEM=block\0DEVNAME=sda\0", False),
        (b"add@/x\0SUBSYSTEM=net\0INTERFACE=veth1\0", False),
        (b"libudev\0\xfe\xed\xca\xfe", False),
        (b"", False),
    ],
)
def test_only_events_that_can_matter_cause_a_scan(message: bytes, concerned: bool) -> None:
    assert uevents.concerns_devices(message) is concerned


def test_the_real_sysfs_of_this_machine_can_be_read() -> None:
    if not Path("/sys/bus").is_dir():
        pytest.skip("no sysfs here")
    scan = SysfsHardware(Path("/")).scan(Look())
    assert all(os.path.isdir(f"/sys/bus/pci/devices/{f.bus_id}") for f in scan.functions)
