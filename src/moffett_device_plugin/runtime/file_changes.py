"""Follows a file that others write: by inotify, and now and then without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from .inotify import ENTRIES, Inotify, Mask

#: Seconds between looks at the file without an event: for file systems and mounts that
#: report none.
READ_PERIOD = 30.0
#: Seconds in which several events are taken as one: a ConfigMap changes by a few.
GATHER = 0.05


async def file_changes(path: Path) -> AsyncGenerator[None, None]:
    """Yields at once, whenever the file may have changed, and every READ_PERIOD."""
    try:
        inotify = Inotify()
    except OSError:
        while True:
            await asyncio.sleep(READ_PERIOD)
            yield
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    changed.set()  # for a change before the watch began

    def drain() -> None:
        if any(True for _ in inotify.read()):
            changed.set()

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
                    await changed.wait()
                await asyncio.sleep(GATHER)
            changed.clear()
            yield
    finally:
        loop.remove_reader(inotify.fd)
        inotify.close()


def _folders_of(path: Path) -> set[Path]:
    return {path.parent, path.resolve().parent}
