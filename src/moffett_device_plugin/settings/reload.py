"""Follows the configuration file: what it says now, or a word on why that cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from pathlib import Path

from ..runtime.counters import Counters
from ..runtime.errors import ConfigurationError
from ..runtime.inotify import ENTRIES, Inotify, Mask
from .load import Configuration, read_text, understood
from .options import Values
from .sections import NodeFacts
from .settings import ServeSettings

log = logging.getLogger(__name__)

#: Seconds between reads of the file without an event: for file systems and mounts
#: that tell of none.
READ_PERIOD = 30.0
#: Seconds in which a burst of events is gathered into one. A ConfigMap changes by a
#: handful of them.
GATHER = 0.05


class ConfigFile:
    """The file at `path` for `node`; `settings` is what holds now. Raises
    ConfigurationError when it is wrong from the start. `text` is what the file said to
    whoever has acted on it already: what it says since then is a change."""

    def __init__(
        self, path: Path, values: Values, node: NodeFacts, text: str | None = None
    ) -> None:
        self.counters = Counters()
        self._path = path
        self._values = values
        self._node = node
        self._text = read_text(path) if text is None else text
        self._told = ""
        self.configuration: Configuration = understood(path, self._text)
        self.settings: ServeSettings = self.configuration.settings(values, node)

    async def changes(self) -> AsyncGenerator[ServeSettings, None]:
        """Yields what holds whenever that changes: never an invalid file."""
        async for _ in _events(self._path):
            if await self._look():
                yield self.settings

    def for_labels(self, labels: Mapping[str, str]) -> ServeSettings | None:
        """What holds now that the node has these labels; None for no difference."""
        self._node = NodeFacts(self._node.name, labels)
        return self.settings if self._apply(self.configuration) else None

    async def _look(self) -> bool:
        """Reads the file, and says whether other settings hold now."""
        try:
            text = await self._settled()
            if text == self._text:
                if self._told:  # it was unreadable for a while, and is what it was
                    self._told = ""
                    log.info("configuration-readable", extra={"file": self._path})
                return False
            configuration = understood(self._path, text)
            changed = self._apply(configuration)
        except ConfigurationError as error:
            self._refuse(str(error))
            return False
        self._text, self.configuration, self._told = text, configuration, ""
        self.counters.reloads += 1
        self.counters.reload_last_ok = True
        if not changed:
            log.info("configuration-unchanged", extra={"file": self._path})
        return changed

    async def _settled(self) -> str:
        """What the file says once it stays: one that is being written may make sense
        half-way, and mean another thing; one that is being replaced may be missing for a
        moment. Raises ConfigurationError for one that stays unreadable."""
        before: str | ConfigurationError | None = None
        while True:
            now = self._read()
            if isinstance(now, str) and now in (self._text, before):
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

    def _apply(self, configuration: Configuration) -> bool:
        settings = configuration.settings(self._values, self._node)
        changed = settings != self.settings
        self.settings = settings
        return changed

    def _refuse(self, why: str) -> None:
        if why == self._told:
            return
        self._told = why
        self.counters.reload_failures += 1
        self.counters.reload_last_ok = False
        effect = "the configuration before it stays in force"
        log.error("configuration-refused", extra={"why": why, "effect": effect})


async def _events(path: Path) -> AsyncGenerator[None, None]:
    """Yields whenever the file may be another one, and now and then without reason."""
    try:
        inotify = Inotify()
    except OSError:
        while True:
            await asyncio.sleep(READ_PERIOD)
            yield
    loop = asyncio.get_running_loop()
    news = asyncio.Event()
    news.set()  # for what happened before anybody watched

    def drain() -> None:
        if any(True for _ in inotify.read()):
            news.set()

    loop.add_reader(inotify.fd, drain)
    try:
        while True:
            # A ConfigMap's file is a link through a link that is replaced: the real
            # file's directory is another one after each change.
            for folder in _folders_of(path):
                with suppress(OSError):
                    inotify.watch(folder, ENTRIES | Mask.CLOSE_WRITE | Mask.ONLYDIR)
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_PERIOD):
                    await news.wait()
                await asyncio.sleep(GATHER)
            news.clear()
            yield
    finally:
        loop.remove_reader(inotify.fd)
        inotify.close()


def _folders_of(path: Path) -> set[Path]:
    return {path.parent, path.resolve().parent}
