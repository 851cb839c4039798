"""Keeps on the host how often devices failed, so that a restart of the plugin offers no
device that flaps before its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.file_changes import file_changes
from ..runtime.state_file import StateFile, StateFileError
from .health.flapping import Record, record_of
from .monitor import Monitor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FaultFile:
    """`folder` is `stateDir`. Times in the file are Unix times."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "faults.json"

    @property
    def _file(self) -> StateFile:
        return StateFile(self.path, "devices")

    def read(self, epoch: float, now: float) -> tuple[Record, ...]:
        """Raises StateFileError."""
        found = (record_of(item, epoch, now) for item in self._file.read())
        return tuple(record for record in found if record is not None)

    def write(self, records: Iterable[Record], epoch: float, written: Collection[str] = ()) -> None:
        """In place of what it had. A device that was `written` before and is there no more was
        forgotten meanwhile, and stays so. Raises OSError, StateFileError."""
        with self._file.changed() as items:
            there = {item.get("id") for item in items}
            items[:] = [
                dict(record.item(epoch))
                for record in records
                if record.device in there or record.device not in written
            ]

    def forget(self, devices: Sequence[str] | None) -> bool:
        """Forgets the faults of these devices, or of all; whether there were any. Raises
        OSError, StateFileError."""
        with self._file.changed() as items:
            rest = [i for i in items if devices is not None and i.get("id") not in devices]
            there = len(rest) < len(items)
            items[:] = rest
        return there


class FaultRecorder:
    """Brings the monitor's faults to the file, and what was forgotten there to the monitor."""

    def __init__(self, monitor: Monitor, file: FaultFile) -> None:
        self._monitor = monitor
        self._file = file
        self._written: Mapping[str, Record] = {}
        self._failed = False

    def restore(self) -> None:
        """Before the monitor's first look."""
        try:
            records = self._file.read(self._monitor.epoch, self._monitor.now)
        except StateFileError as error:
            self._log_failure(error)
            return
        self._written = {record.device: record for record in records}
        self._monitor.restore(records)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_monitor())
            tasks.create_task(self._follow_file())

    async def _follow_monitor(self) -> None:
        version = -1
        while True:
            _, version = await self._monitor.state.after(version)
            records = {record.device: record for record in self._monitor.fault_records()}
            if records == self._written:
                continue
            try:
                await asyncio.to_thread(
                    self._file.write, records.values(), self._monitor.epoch, self._written.keys()
                )
            except (OSError, StateFileError) as error:
                self._log_failure(error)
            else:
                self._failed = False
                self._written = records

    async def _follow_file(self) -> None:
        async for _ in file_changes(self._file.path):
            try:
                records = self._file.read(self._monitor.epoch, self._monitor.now)
            except StateFileError as error:
                self._log_failure(error)
                continue
            # Only what is known to have been there: a record may be on its way to the file.
            forgotten = self._written.keys() - {record.device for record in records}
            if forgotten:
                log.info("faults-forgotten", extra={"devices": sorted(forgotten)})
                self._monitor.forget_faults(forgotten)

    def _log_failure(self, error: Exception) -> None:
        if not self._failed:
            effect = "a restart of the plugin forgets which devices flap"
            text: Any = error.strerror if isinstance(error, OSError) else error
            log.warning("faults-not-kept", extra={"error": text, "effect": effect})
        self._failed = True
