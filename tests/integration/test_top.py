"""`top` on a terminal and off one, as a process of its own."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from tests.support.podresources import PodResources
from tests.support.running import RESOURCE, within

ALTERNATE, NORMAL, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


def command(directory: Path, *flags: str, simulate: str = "2xS30") -> list[str]:
    return [
        sys.executable, "-m", "moffett_device_plugin", "top",
        "--simulate", simulate, "--kubelet-dir", str(directory),
        "--simulate-control", str(directory / "control.json"), *flags,
    ]  # fmt: skip


def printed(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    words = command(directory, *flags)
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


# -- off a terminal -------------------------------------------------------------------


def test_once_prints_a_plain_table(short_dir: Path) -> None:
    done = printed(short_dir, "--once", "--sort", "temp")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    ids = [line.split()[1] for line in lines if "0000:" in line]
    assert ids[0] == "0000:b8:00.0"  # the warmest
    assert len(ids) == 6
    assert done.stderr.startswith("pods are not known: ")


def test_json_has_the_devices_as_devices_has_them(short_dir: Path) -> None:
    done = printed(short_dir, "--once", "-o", "json")
    told = json.loads(done.stdout)
    first = told["devices"][0]
    assert (first["id"], first["healthy"], first["holders"]) == ("0000:36:00.0", True, [])
    assert "No such file" in told["pods_unknown"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("-o", "json"), "add --once"),
        (("--interval", "0"), "from 0.2"),
        (("--sort", "x"), "choose"),
    ],
)
def test_wrong_usage(short_dir: Path, flags: tuple[str, ...], says: str) -> None:
    done = printed(short_dir, *flags)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_ends_it(short_dir: Path) -> None:
    with subprocess.Popen(
        command(short_dir, "--interval", "0.2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141  # as a program ends by SIGPIPE
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))  # type: ignore[arg-type]

    return run


@on_a_loop
async def test_it_says_which_pod_holds_what(short_dir: Path) -> None:
    directory = short_dir / "device-plugins"
    socket = short_dir / "pod-resources" / "kubelet.sock"
    socket.parent.mkdir()
    directory.mkdir()
    pods = PodResources({"ml/train-0/main": {RESOURCE: [["0000:37:00.0"]]}})
    async with pods.serving(socket):
        process = await asyncio.create_subprocess_exec(
            *command(directory, "--once"), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await within(process.communicate(), "end of top")
    held = [line for line in out.decode().splitlines() if "ml/train-0" in line]
    assert [line.split()[1] for line in held] == ["0000:37:00.0"]


# -- on a terminal --------------------------------------------------------------------


class Terminal:
    """The other end of a pseudo-terminal: what was written, and a process on it."""

    def __init__(self, fd: int, line: int, process: asyncio.subprocess.Process) -> None:
        self.fd = fd
        self.line = line  # the process's end, as another process on it would see it
        self.process = process
        self.written = ""
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.fd, 65_536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.fd)
        self.written += data.decode(errors="replace")
        self._news.set()

    async def until(self, text: str) -> str:
        """All that was written up to `text`, which is forgotten then."""

        async def wait() -> None:
            while text not in self.written:
                self._news.clear()
                await self._news.wait()

        await within(wait(), f"{text!r} on the screen: {self.written[-2000:]!r}")
        before, _, self.written = self.written.partition(text)
        return before

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.line)


@asynccontextmanager
async def on_terminal(directory: Path, *flags: str, spec: str = "8xS30") -> AsyncIterator[Terminal]:
    fd, line = pty.openpty()
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 120, 0, 0))
    before = termios.tcgetattr(line)
    process = await asyncio.create_subprocess_exec(
        *command(directory, "--interval", "0.2", *flags, simulate=spec),
        stdin=line, stdout=line, stderr=line, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    terminal = Terminal(fd, line, process)
    try:
        await terminal.until(ALTERNATE)
        await terminal.until("sorted by index")
        yield terminal
        # However it ended, the terminal is as it was.
        await within(process.wait(), "end of top")
        await terminal.until(NORMAL)
        assert termios.tcgetattr(line) == before
        assert SHOW_CURSOR in terminal.written or "\x1b[?25l" not in terminal.written
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(fd)
        os.close(line)
        os.close(fd)


@on_a_loop
async def test_keys_sort_scroll_and_quit(short_dir: Path) -> None:
    async with on_terminal(short_dir) as terminal:
        assert not terminal.settings[3] & (termios.ECHO | termios.ICANON)
        terminal.press("t")
        await terminal.until("sorted by temp")
        terminal.press("r")
        await terminal.until("sorted by temp, reversed")
        terminal.press("i\x1b[B")
        await terminal.until("(1 above")
        terminal.press("\x1b[F")
        await terminal.until(", 0 below)")
        terminal.press("q")
        assert await within(terminal.process.wait()) == 0


@on_a_loop
async def test_a_device_that_falls_sick_is_seen_without_a_key(short_dir: Path) -> None:
    async with on_terminal(short_dir) as terminal:
        (short_dir / "control.json").write_text('{"faults": {"0000:36:00.0": ["config"]}}')
        await terminal.until("23 healthy")
        await terminal.until("config-unreadable")
        terminal.press("q")


@on_a_loop
async def test_a_terminal_that_grows_shows_more(short_dir: Path) -> None:
    async with on_terminal(short_dir) as terminal:
        assert "0000:c7:00.0" not in terminal.written
        terminal.resize(120, 60)
        await terminal.until("0000:c7:00.0")
        terminal.press("q")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@on_a_loop
async def test_a_signal_ends_it_and_the_terminal_is_restored(
    short_dir: Path, number: signal.Signals
) -> None:
    async with on_terminal(short_dir) as terminal:
        terminal.process.send_signal(number)
        assert await within(terminal.process.wait()) == 0


@on_a_loop
async def test_ctrl_c_ends_it(short_dir: Path) -> None:
    async with on_terminal(short_dir) as terminal:
        terminal.press("\x03")
        assert await within(terminal.process.wait()) == 0


@on_a_loop
async def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(short_dir: Path) -> None:
    async with on_terminal(short_dir) as terminal:
        cooked = termios.ECHO | termios.ICANON
        terminal.process.send_signal(signal.SIGTSTP)
        await terminal.until(NORMAL)
        pid, status = await asyncio.to_thread(os.waitpid, terminal.process.pid, os.WUNTRACED)
        assert (pid, os.WIFSTOPPED(status)) == (terminal.process.pid, True)
        assert terminal.settings[3] & cooked == cooked
        terminal.process.send_signal(signal.SIGCONT)
        await terminal.until(ALTERNATE)
        await terminal.until("sorted by index")
        terminal.press("q")
