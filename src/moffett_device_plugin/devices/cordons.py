"""Brings the cordons of an operator together: the configuration's, those of the command
`cordon`, and those of the Node's annotation."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..runtime.file_changes import file_changes
from ..runtime.state_file import StateFileError
from .cordon_file import CordonFile
from .health.cordon import ALL, Cordon
from .monitor import Monitor

log = logging.getLogger(__name__)

BY_CONFIGURATION = "the configuration"


def configured(targets: Sequence[str]) -> tuple[Cordon, ...]:
    return tuple(Cordon(target, BY_CONFIGURATION) for target in targets)


class Cordons:
    """Keeps the monitor's cordons to what its sources say."""

    def __init__(self, monitor: Monitor, file: CordonFile, targets: Sequence[str]) -> None:
        self._monitor = monitor
        self._file = file
        self._configured = configured(targets)
        self._of_file: tuple[Cordon, ...] | None = None
        self._error = ""

    def configure(self, targets: Sequence[str]) -> None:
        """Those of the configuration, from now on."""
        self._configured = configured(targets)
        self._apply()

    def read(self) -> None:
        """Reads the file. While it cannot be read, what it said stays; if it never could be,
        no device is offered: any of them may be cordoned."""
        try:
            self._of_file = self._file.read()
            error = ""
        except StateFileError as failed:
            error = str(failed)
            if self._of_file is None or self._of_file == _unknown(self._error):
                self._of_file = _unknown(error)
        if error and error != self._error:
            log.error("cordons-not-read", extra={"error": error, "effect": self._effect})
        elif self._error and not error:
            log.info("cordons-readable-again")
        self._error = error
        self._apply()

    async def run(self) -> None:
        """Until it is cancelled."""
        async for _ in file_changes(self._file.path):
            self.read()

    @property
    def _effect(self) -> str:
        if self._of_file and self._of_file[0].target == ALL:
            return "no device is offered: any may be cordoned; correct or remove the file"
        return "the cordons before it stay in force; correct or remove the file"

    def _apply(self) -> None:
        self._monitor.cordon(self._configured + (self._of_file or ()))


def _unknown(error: str) -> tuple[Cordon, ...]:
    return (Cordon(ALL, "the plugin", f"its list of cordons cannot be read: {error}"),)
