"""Follows the configuration file, and refuses what is wrong in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Literal

from ..runtime.counters import Counters
from ..runtime.errors import ConfigurationError
from ..runtime.file_changes import GATHER, file_changes
from .load import Configuration, parse_configuration, read_text
from .options import Values
from .sections import NodeFacts
from .settings import ServeSettings

log = logging.getLogger(__name__)


class ConfigFile:
    """The file of `configuration` for `node`; `settings` is what is in force. Raises
    ConfigurationError when it is wrong from the start. `configuration` may have been acted
    on already: what the file says since it was read is a change."""

    def __init__(self, configuration: Configuration, values: Values, node: NodeFacts) -> None:
        self.counters = Counters()
        self.configuration = configuration
        self.settings: ServeSettings = configuration.settings(values, node)
        self._path = Path(configuration.file)
        self._values = values
        self._node = node
        #: Why the file, and what it says for the labels, was refused last.
        self._refused: dict[Literal["file", "labels"], str] = {}

    async def changes(self) -> AsyncGenerator[ServeSettings, None]:
        """Yields the settings whenever others are in force: never those of an invalid file."""
        async for _ in file_changes(self._path):
            if await self._look():
                yield self.settings

    def for_labels(self, labels: Mapping[str, str]) -> ServeSettings | None:
        """What is in force now that the node has these labels; None for no difference. What
        they lead to may be wrong: it is logged, and what was in force stays."""
        node = NodeFacts(self._node.name, labels)
        try:
            changed = self._apply(self.configuration, node)
        except ConfigurationError as error:
            self._refuse("labels", str(error))
            return None
        self.counters.reload_last_ok = "file" not in self._refused
        self._refused.pop("labels", None)
        return self.settings if changed else None

    async def _look(self) -> bool:
        """Reads the file; whether other settings are in force now."""
        try:
            text = await self._settled()
            if text == self.configuration.text:
                if self._refused.pop("file", None):  # it could not be read for a while
                    log.info("configuration-readable", extra={"file": self._path})
                return False
            configuration = parse_configuration(self._path, text)
            changed = self._apply(configuration, self._node)
        except ConfigurationError as error:
            self._refuse("file", str(error))
            return False
        self._refused.clear()
        self.counters.reloads += 1
        self.counters.reload_last_ok = True
        if not changed:
            log.info("configuration-unchanged", extra={"file": self._path})
        return changed

    async def _settled(self) -> str:
        """The file's text once it is the same twice: half of a file that is being written
        can be valid as well, and one that is being replaced can be missing for a moment.
        Raises ConfigurationError for a file that cannot be read."""
        before: str | ConfigurationError | None = None
        while True:
            now = self._read()
            if isinstance(now, str) and now in (self.configuration.text, before):
                return now
            if isinstance(now, ConfigurationError) and str(now) == str(before):
                raise now
            before = now
            await asyncio.sleep(GATHER)

    def _read(self) -> str | ConfigurationError:
        try:
            return read_text(self._path)
        except ConfigurationError as error:
            return error

    def _apply(self, configuration: Configuration, node: NodeFacts) -> bool:
        """Whether other settings are in force now. Raises ConfigurationError, and then
        nothing has changed but what is known of the node."""
        self._node = node
        settings = configuration.settings(self._values, node)
        changed = settings != self.settings
        self.configuration, self.settings = configuration, settings
        return changed

    def _refuse(self, what: Literal["file", "labels"], why: str) -> None:
        if why == self._refused.get(what):
            return
        self._refused[what] = why
        self.counters.reload_failures += 1
        self.counters.reload_last_ok = False
        effect = "the settings before it stay in force"
        log.error("configuration-refused", extra={"why": why, "effect": effect})
