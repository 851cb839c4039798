"""`top` on a terminal: redrawn whenever something changes, until `q`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ..devices.monitor import Monitor
from ..doctor.holders import Held, ask_holders, by_device
from .device_rows import rows_of
from .top_keys import keys_from
from .top_view import Scene, Screen, View, after_key, clamped, line_count, page_size


class LiveTop:
    """Owns the screen and the keyboard while `run` runs, and gives both back however
    it ends."""

    def __init__(self, monitor: Monitor, socket: Path | None, view: View, interval: float) -> None:
        self._monitor = monitor
        self._socket = socket
        self._interval = interval
        self._view = view
        self._held = Held(why_not="not asked yet")
        self._console = Console(highlight=False)
        self._due = asyncio.Event()
        self._ended = asyncio.Event()
        self._live: Live | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._monitor.state.listen(self._due.set)
        loop.add_signal_handler(signal.SIGWINCH, self._due.set)
        loop.add_signal_handler(signal.SIGCONT, self._due.set)
        loop.add_signal_handler(signal.SIGTSTP, self._stop)
        try:
            with ExitStack() as screen:
                self._screen = screen
                screen.enter_context(self._shown())
                await self._follow()
        finally:
            for number in (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP):
                loop.remove_signal_handler(number)

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(self._monitor.run()),
                tasks.create_task(self._ask_holders()),
                tasks.create_task(self._draw()),
            ]
            await self._ended.wait()
            for task in work:
                task.cancel()

    @contextmanager
    def _shown(self) -> Iterator[None]:
        with ExitStack() as parts:
            # The keyboard first: what ends last restores last, and the screen is back
            # before keys are echoed again.
            if sys.stdin.isatty():
                parts.enter_context(keys_from(sys.stdin.fileno(), self._pressed))
            self._live = parts.enter_context(
                Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False,
                     redirect_stderr=False)
            )  # fmt: skip
            yield
        self._live = None

    def _stop(self) -> None:
        """Ctrl-Z: the terminal is the shell's until it is brought to the front again."""
        self._screen.close()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._screen.enter_context(self._shown())
        self._due.set()

    def _scene(self) -> Scene:
        state = self._monitor.state.value
        holders = by_device(self._held, state.snapshot)
        return Scene(state, rows_of(state, holders), self._held.why_not)

    def _pressed(self, key: str) -> None:
        if key in ("q", "Q"):
            self._ended.set()
            return
        scene = self._scene()
        lines, page = line_count(scene), page_size(self._console.height, scene)
        # A terminal that has grown shows more than where the reader had scrolled to.
        view = View(self._view.sort, self._view.reverse, clamped(self._view.offset, lines, page))
        self._view = after_key(view, key, lines, page)
        self._due.set()

    async def _ask_holders(self) -> None:
        while True:
            self._held = await ask_holders(self._socket)
            self._due.set()
            await asyncio.sleep(max(self._interval, 1.0))

    async def _draw(self) -> None:
        """At every change, and every second for the clock."""
        while True:
            self._due.clear()
            if self._live is not None:
                self._live.update(Screen(self._scene(), self._view), refresh=True)
            try:
                async with asyncio.timeout(1.0):
                    await self._due.wait()
            except TimeoutError:
                pass
