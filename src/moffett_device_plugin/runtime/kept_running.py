"""An optional part of the daemon: an error in it does not end the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

#: Seconds until a part that failed with an unexpected error is restarted.
RESTART = 60.0


async def kept_running(
    name: str, run: Callable[[], Awaitable[None]], pause: float = RESTART
) -> None:
    """Runs it, and restarts it after `pause` seconds on an unexpected error."""
    while True:
        try:
            await run()
        except Exception:
            # Every error is caught here: a defect of an optional feature must not make the
            # node lose its devices. The log has the traceback.
            log.exception("api-feature-failed", extra={"feature": name, "again_in_s": pause})
        await asyncio.sleep(pause)
