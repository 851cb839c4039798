"""The simulated node as hardware: faults come from its owner or from a file."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.inotify import ENTRIES, Inotify, Mask
from . import Look, SmiError
from .simulation import NODE, Faults, Layout, bus_scan, smi_report
from .types import BusScan, Mount, SmiReport

log = logging.getLogger(__name__)

_MAX_CONTROL = 1 << 20


class SimulatedNode:
    """Shows what `layout` would show with `faults`; `set` changes the latter.

    With `control`, the faults are what that file says, whenever it changes: so
    that another process (`moffett-device-plugin simulate`) can break things.
    """

    def __init__(self, layout: Layout, control: Path | None = None) -> None:
        self.layout = layout
        self.faults = Faults()
        self._control = control
        self._changed = asyncio.Event()
        if control is not None:
            self._load(control)

    def set(self, faults: Faults) -> None:
        self.faults = faults
        self._changed.set()

    @property
    def has_smi(self) -> bool:
        return True

    def scan(self, look: Look) -> BusScan:
        return bus_scan(self.layout, self.faults)

    def registers(self, look: Look) -> object:
        return None  # every change here is an event

    async def query_smi(self) -> SmiReport:
        if "smi-silent" in self.faults.of(NODE):
            raise SmiError("no end after 5 s; killed")
        return smi_report(self.layout, self.faults)

    def sola_mounts(self) -> tuple[Mount, ...] | None:
        return ()  # nothing that a simulated device's user would miss

    def sola_version(self) -> str | None:
        return None

    async def events(self) -> AsyncGenerator[None, None]:
        with _watching(self._control, self._load):
            while True:
                await self._changed.wait()
                self._changed.clear()
                yield

    def _load(self, path: Path) -> None:
        try:
            faults = Faults.from_json(_read_text(path))
        except FileNotFoundError:
            faults = Faults()
        except (OSError, ValueError) as error:
            log.warning("simulation-control-unreadable", extra={"file": path, "error": error})
            return
        if faults != self.faults:
            self.set(faults)


def _read_text(path: Path) -> str:
    """Raises ValueError for what is no text of a sensible size, such as a pipe or /dev/zero,
    whose read would not end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with path.open(encoding="utf-8") as file:
        text = file.read(_MAX_CONTROL + 1)
    if len(text) > _MAX_CONTROL:
        raise ValueError(f"more than {_MAX_CONTROL} characters")
    return text


@contextmanager
def _watching(path: Path | None, load: Callable[[Path], None]) -> Iterator[None]:
    """Calls `load` now, and whenever the file at `path` is replaced or removed."""
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        inotify = Inotify()
        inotify.watch(path.parent, ENTRIES | Mask.CLOSE_WRITE)
    except OSError as error:  # a read-only root, say: nothing can be broken then
        log.warning("simulation-control-unavailable", extra={"file": path, "error": error})
        yield
        return

    def drain() -> None:
        if any(event.name == path.name for event in inotify.read()):
            load(path)

    loop = asyncio.get_running_loop()
    loop.add_reader(inotify.fd, drain)
    try:
        load(path)  # for what was written before the watch was set
        yield
    finally:
        loop.remove_reader(inotify.fd)
        inotify.close()


def write_control(path: Path, faults: Faults) -> None:
    """Replaces the control file at once, so that no reader sees half of it."""
    import tempfile  # for this command only

    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".simulation-")
    with os.fdopen(fd, "w") as file:
        file.write(faults.to_json())
    Path(name).replace(path)


def read_control(path: Path) -> Faults:
    """Raises ValueError for a file that is not one of ours."""
    try:
        return Faults.from_json(_read_text(path))
    except FileNotFoundError:
        return Faults()
