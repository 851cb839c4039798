"""mx-smi in a process of its own, whose readings the plugin gets by a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.monitor import Monitor, PollIntervals
from moffett_device_plugin.hardware import SmiAbsentError, SmiError
from moffett_device_plugin.hardware.smi_source import SmiSource
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware, own_smi
from moffett_device_plugin.hardware.telemetry.client import TelemetryClient
from moffett_device_plugin.hardware.telemetry.given_nodes import GivenNodes
from moffett_device_plugin.hardware.telemetry.protocol import MAX_ANSWER, Answer, encode_answer
from moffett_device_plugin.hardware.telemetry.server import MAX_CONNECTIONS, TelemetryServer
from moffett_device_plugin.hardware.types import SmiDevice, SmiReport
from tests.support.fakehost import FakeHost
from tests.support.running import until

CHIP = "0000:36:00.0"
ROW = "0, 0:36:00.0, 2023, 44, {ecc}"
COLUMNS = "index, pci.bus_id, serial, temperature, ecc.errors.uncorrected.volatile.device_memory"


@pytest.fixture
def path(short_dir: Path) -> Path:
    return short_dir / "t" / "telemetry.sock"


def one_chip(host: FakeHost, ecc: int = 0) -> None:
    host.smi_table(ROW.format(ecc=ecc), columns=COLUMNS)


@asynccontextmanager
async def serving(host: FakeHost, path: Path, smi: SmiSource | None = None) -> AsyncIterator[None]:
    """With the container's /dev empty: what mx-smi lists is reachable all the same."""
    hardware = SysfsHardware(host.root, smi="")
    given = GivenNodes(hardware, path.parent)
    server = TelemetryServer(smi or own_smi(host.root, None, 5.0), given, path)
    task = asyncio.create_task(server.run())
    while not path.exists():
        assert not task.done(), task.exception()
        await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        given.close()


def monitor_of(host: FakeHost, path: Path) -> Monitor:
    hardware = SysfsHardware(host.root, smi_source=TelemetryClient(path, 10.0))
    intervals = PollIntervals(smi=0.05)
    return Monitor(hardware, HealthPolicy(recovery_seconds=0), time.monotonic, intervals)


def test_the_plugin_judges_by_the_readings_of_the_other_process(host: FakeHost, path: Path) -> None:
    host.function(CHIP)
    one_chip(host)

    async def play() -> None:
        monitor = monitor_of(host, path)
        watching = asyncio.create_task(monitor.run())
        await until(monitor.state, lambda: monitor.state.value.settled)
        assert monitor.state.value.healthy(CHIP), "it works on without readings"
        async with serving(host, path):
            await until(monitor.state, lambda: _serial(monitor) == "2023")
            one_chip(host, ecc=1)
            await until(monitor.state, lambda: "ecc-uncorrected" in _codes(monitor))
        # Unknown neither condemns nor heals.
        await until(monitor.state, lambda: not monitor.state.value.snapshot.smi.present)
        assert "ecc-uncorrected" in _codes(monitor)
        async with serving(host, path):
            one_chip(host)
            await until(monitor.state, lambda: monitor.state.value.healthy(CHIP))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(play())


def _serial(monitor: Monitor) -> str | None:
    device = monitor.state.value.snapshot.by_id().get(CHIP)
    return device.serial if device else None


def _codes(monitor: Monitor) -> frozenset[str]:
    return monitor.state.value.health_statuses[CHIP].codes


def test_a_device_whose_node_the_container_lacks_is_not_condemned(
    host: FakeHost, path: Path
) -> None:
    """mx-smi lists only what it can open."""
    host.function(CHIP)
    host.function("0000:37:00.0")
    one_chip(host)

    async def play() -> SmiReport:
        async with serving(host, path):
            return await TelemetryClient(path, 10.0).query()

    report = asyncio.run(play())
    assert [device.bus_id for device in report.devices] == [CHIP]
    assert not report.complete
    assert len(report.notes) == 1


class Slow:
    """An mx-smi that answers when it is told to."""

    present = True

    def __init__(self) -> None:
        self.runs = 0
        self.go = asyncio.Event()

    async def query(self) -> SmiReport:
        self.runs += 1
        run = self.runs
        await self.go.wait()
        return SmiReport((SmiDevice(CHIP, index=run),))


def test_questions_during_a_run_share_the_next(host: FakeHost, path: Path) -> None:
    """No answer is of a run that began before its question."""

    async def play() -> list[int | None]:
        smi = Slow()
        async with serving(host, path, smi):
            client = TelemetryClient(path, 10.0)
            first = asyncio.create_task(client.query())
            while not smi.runs:
                await asyncio.sleep(0)
            later = [asyncio.create_task(client.query()) for _ in range(5)]
            while _connections(path) < 6:
                await asyncio.sleep(0.001)
            smi.go.set()
            reports = await asyncio.gather(first, *later)
        return [report.devices[0].index for report in reports]

    assert asyncio.run(play()) == [1, 2, 2, 2, 2, 2]


def _connections(path: Path) -> int:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(str(path)) and " 03 " in line for line in lines)


def test_an_mx_smi_that_fails_and_one_that_is_not_there(host: FakeHost, path: Path) -> None:
    host.function(CHIP)
    host.smi("echo no such field; exit 7")

    async def play() -> list[Exception]:
        found: list[Exception] = []
        async with serving(host, path):
            for _ in range(2):
                try:
                    await TelemetryClient(path, 20.0).query()
                except SmiError as error:
                    found.append(error)
                (host.root / "usr/bin/mx-smi").unlink(missing_ok=True)
        return found

    failed, absent = asyncio.run(play())
    assert not isinstance(failed, SmiAbsentError)
    assert "exit status 7" in str(failed)
    assert "was not given it" in str(failed), "the cause that is seen from there"
    assert isinstance(absent, SmiAbsentError)


def test_without_a_process_there_is_no_mx_smi(path: Path) -> None:
    client = TelemetryClient(path, 1.0)
    assert not client.present
    with pytest.raises(SmiAbsentError):
        asyncio.run(client.query())


def test_a_process_that_was_killed_is_an_error_and_its_socket_is_replaced(
    host: FakeHost, path: Path
) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    client = TelemetryClient(path, 5.0)
    assert client.present
    with pytest.raises(SmiError, match="no telemetry process listens"):
        asyncio.run(client.query())
    host.function(CHIP)
    one_chip(host)

    async def play() -> SmiReport:
        path.unlink()
        async with serving(host, path):
            return await client.query()

    assert asyncio.run(play()).devices


def answering(path: Path, *parts: bytes) -> Callable[[], Awaitable[None]]:
    """Whoever poses as the telemetry process."""

    async def serve() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readline()
                for part in parts:
                    writer.write(part)
                    await writer.drain()
            except OSError:
                pass
            finally:
                writer.close()

        path.parent.mkdir(mode=0o755, exist_ok=True)
        async with await asyncio.start_unix_server(answer, path):
            await TelemetryClient(path, 5.0).query()

    return serve


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((b"x" * 1000,) * (MAX_ANSWER // 1000 + 1), "more than"),
        ((b"",), "ended within"),
        ((b'{"protocol": 1',), "ended within"),
        ((b"hello\n",), "no message"),
        ((encode_answer(Answer(SmiReport(), age=3600.0)),), "of 3600 s ago"),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_one_line(
    path: Path, parts: tuple[bytes, ...], error: str
) -> None:
    with pytest.raises(SmiError, match=error) as caught:
        asyncio.run(answering(path, *parts)())  # type: ignore[arg-type]
    assert str(caught.value).isprintable()


def test_who_does_not_answer_is_given_up_on(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with pytest.raises(SmiError, match="did not answer"):
            asyncio.run(TelemetryClient(path, 0.1).query())


def test_a_directory_that_others_may_write_to_is_not_trusted(host: FakeHost, path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as anybody:
        anybody.bind(str(path))
        anybody.listen()
        with pytest.raises(SmiError, match="mode 0777"):
            asyncio.run(TelemetryClient(path, 5.0).query())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_gets_no_answer_and_is_not_believed(host: FakeHost, path: Path) -> None:
    host.function(CHIP)
    one_chip(host)
    ask = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setuid(4242);"
        " s.connect(sys.argv[1]); s.settimeout(20)\n"
        "try: s.sendall(b'{\"protocol\": 1}\\n'); print(len(s.recv(100)))\n"
        "except (BrokenPipeError, ConnectionResetError): print(0)"
    )

    async def play() -> bytes:
        async with serving(host, path):
            path.parent.parent.chmod(0o755)
            path.chmod(0o666)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", ask, str(path), stdout=subprocess.PIPE
            )
            output, _ = await process.communicate()
            return output

    assert asyncio.run(play()).strip() == b"0"

    pose = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
        " os.setuid(4242); s.listen(); print(flush=True); s.accept(); sys.stdin.read()"
    )
    command = [sys.executable, "-c", pose, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(SmiError, match="of user 4242"):
            asyncio.run(TelemetryClient(path, 5.0).query())
        process.kill()


def test_whoever_holds_connections_keeps_nobody_out_for_long(
    host: FakeHost, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.function(CHIP)
    one_chip(host)
    monkeypatch.setattr("moffett_device_plugin.hardware.telemetry.server.CLIENT_DEADLINE", 0.1)

    async def play() -> SmiReport:
        async with serving(host, path):
            held = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CONNECTIONS)]
            for connection in held:
                connection.connect(str(path))
            try:
                while True:
                    try:
                        return await TelemetryClient(path, 5.0).query()
                    except SmiError:
                        await asyncio.sleep(0.01)
            finally:
                for connection in held:
                    connection.close()

    assert asyncio.run(play()).devices


def test_a_socket_that_was_removed_is_made_again(
    host: FakeHost, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.function(CHIP)
    one_chip(host)
    monkeypatch.setattr("moffett_device_plugin.hardware.telemetry.server.WATCH_INTERVAL", 0.01)

    async def play() -> SmiReport:
        async with serving(host, path):
            path.unlink()
            while not path.exists():
                await asyncio.sleep(0.001)
            return await TelemetryClient(path, 5.0).query()

    assert asyncio.run(play()).devices


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
def test_a_container_whose_nodes_have_other_numbers_ends(
    host: FakeHost, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet starts it again, with the numbers that the nodes have then."""
    host.function(CHIP)
    host.smi_table(columns=COLUMNS)
    hardware = SysfsHardware(host.root, smi="")
    given = GivenNodes(hardware, path.parent)
    server = TelemetryServer(own_smi(host.root, None, 5.0), given, path)
    for name, value in (("LEAST_AGE", 0), ("STALE_FOR", 0), ("WATCH_INTERVAL", 0.01)):
        monkeypatch.setattr(f"moffett_device_plugin.hardware.telemetry.server.{name}", value)

    async def play() -> None:
        running = asyncio.create_task(server.run())
        while not path.exists():
            await asyncio.sleep(0)
        (path.parent / "dev").mkdir()
        await given.check(everything=True)
        for node in hardware.node_numbers:
            (path.parent / node.lstrip("/")).parent.mkdir(exist_ok=True)
            os.mknod(path.parent / node.lstrip("/"), 0o020600, os.makedev(240, 250))
        report = await TelemetryClient(path, 5.0).query()
        assert report.notes
        assert not report.complete
        async with asyncio.timeout(10):
            await running
        given.close()

    asyncio.run(play())


def test_the_command_answers_and_ends_in_order(host: FakeHost, path: Path) -> None:
    host.function(CHIP)
    one_chip(host)
    words = ["telemetry", "--host-root", str(host.root), "--telemetry-socket", str(path)]
    command = [sys.executable, "-m", "moffett_device_plugin", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "event=telemetry-listening" in process.stderr.readline()
        report = asyncio.run(TelemetryClient(path, 20.0).query())
        assert [device.serial for device in report.devices] == ["2023"]
        assert "event=mx-smi-answers devices=1" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not path.exists()


def test_a_command_that_cannot_listen_says_why(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    command = [sys.executable, "-m", "moffett_device_plugin", "telemetry"]
    done = subprocess.run(
        [*command, "--telemetry-socket", str(path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "event=telemetry-cannot-listen" in done.stderr
    assert "use mode 0755" in done.stderr
