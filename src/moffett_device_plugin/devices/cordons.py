"""Brings the cordons of an operator together: the configuration's, those of the command
`cordon`, and those of the Node's annotation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ..runtime.file_changes import file_changes
from ..runtime.state_file import StateFileError
from ..runtime.watchable import Watchable
from .cordon_file import CordonFile
from .health.cordon import ALL, Cordon, parse_targets
from .monitor import Monitor

log = logging.getLogger(__name__)

BY_CONFIGURATION = "the configuration"
BY_ANNOTATION = "the Node's annotation"


def configured(targets: Sequence[str]) -> tuple[Cordon, ...]:
    return tuple(Cordon(target, BY_CONFIGURATION) for target in targets)


def kept_cordons(file: CordonFile, *, annotated: bool) -> tuple[Cordon, ...]:
    """Those of the command and, where it counts, what the annotation said last. Raises
    StateFileError."""
    return file.read() + (_annotated(file.read_annotation()) if annotated else ())


def _annotated(text: str) -> tuple[Cordon, ...]:
    return tuple(Cordon(target, BY_ANNOTATION) for target in parse_targets(text)[0])


class Cordons:
    """Keeps the monitor's cordons to what its sources say.

    `annotation`, if it counts, is None until it is known: until then, what it said last is in
    force, also when that was before a restart.
    """

    def __init__(
        self,
        monitor: Monitor,
        file: CordonFile,
        targets: Sequence[str],
        annotation: Watchable[str | None] | None = None,
    ) -> None:
        self._monitor = monitor
        self._file = file
        self._configured = configured(targets)
        self._annotation = annotation
        self._kept: tuple[Cordon, ...] | None = None
        self._error = ""

    def configure(self, targets: Sequence[str]) -> None:
        """Those of the configuration, from now on."""
        self._configured = configured(targets)
        self._apply()

    def read(self) -> None:
        """Reads what is kept. While it cannot be read, what it said stays; if it never could
        be, no device is offered: any of them may be cordoned."""
        try:
            self._kept = kept_cordons(self._file, annotated=self._annotation is not None)
            error = ""
        except StateFileError as failed:
            error = str(failed)
            if self._kept is None or self._kept == _unknown(self._error):
                self._kept = _unknown(error)
        if error and error != self._error:
            log.error("cordons-not-read", extra={"error": error, "effect": self._effect})
        elif self._error and not error:
            log.info("cordons-readable-again")
        self._error = error
        self._apply()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_file())
            if self._annotation is not None:
                tasks.create_task(self._follow_annotation(self._annotation))

    async def _follow_file(self) -> None:
        async for _ in file_changes(self._file.path):
            self.read()

    async def _follow_annotation(self, annotation: Watchable[str | None]) -> None:
        version = -1
        while True:
            text, version = await annotation.after(version)
            if text is None:
                continue
            if wrong := parse_targets(text)[1]:
                effect = "these take nothing out of service; the others do"
                log.error("cordon-annotation-wrong", extra={"wrong": wrong, "effect": effect})
            self._apply()
            try:
                await asyncio.to_thread(self._file.write_annotation, text)
            except (OSError, StateFileError) as error:
                extra = {"error": str(error), "effect": "a restart waits for the API server"}
                log.warning("cordon-annotation-not-kept", extra=extra)

    @property
    def _effect(self) -> str:
        if self._kept and self._kept[0].target == ALL:
            return "no device is offered: any may be cordoned; correct or remove the file"
        return "the cordons before it stay in force; correct or remove the file"

    def _apply(self) -> None:
        kept = self._kept or ()
        if self._annotation is not None and (text := self._annotation.value) is not None:
            kept = tuple(c for c in kept if c.by != BY_ANNOTATION) + _annotated(text)
        self._monitor.cordon(self._configured + kept)


def _unknown(error: str) -> tuple[Cordon, ...]:
    return (Cordon(ALL, "the plugin", f"its list of cordons cannot be read: {error}"),)
