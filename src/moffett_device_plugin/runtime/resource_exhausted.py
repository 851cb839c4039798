"""What has run out for the whole process, or the whole machine: an error that says nothing
of the file it came with, and must not be taken for the file's absence."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)

_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
#: Seconds after which what is still going on is told again.
_AGAIN = 600.0


def is_resource_exhausted(error: BaseException | None) -> bool:
    """No descriptor, memory or buffer was left for the call.

    >>> is_exhaustion(OSError(errno.EMFILE, "")), is_exhaustion(OSError(errno.ENOENT, ""))
    (True, False)
    """
    return isinstance(error, OSError) and error.errno in _ERRORS


def log_resource_exhaustion_once(loop: asyncio.AbstractEventLoop) -> None:
    """asyncio goes on when a connection cannot be accepted, and tries again each second;
    it would tell of each try with a traceback. Other errors are told as it tells them."""
    told_at = float("-inf")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told_at
        error = context.get("exception")
        if not is_resource_exhausted(error):
            if not _is_about_a_closed_listener(context):
                loop.default_exception_handler(context)
        elif loop.time() - told_at > _AGAIN:
            told_at = loop.time()
            log.warning(
                "exhausted",
                extra={
                    "error": getattr(error, "strerror", None) or error,
                    "effect": "who connects has to wait; it is tried again",
                    "remedy": "look at who holds so many descriptors, or raise the limit",
                },
            )

    loop.set_exception_handler(handle)


def _is_about_a_closed_listener(context: dict[str, Any]) -> bool:
    """When asyncio tries again, the listener may have been closed in the meantime; it
    does not look, and nothing is wrong."""
    closed = isinstance(context.get("exception"), ValueError)
    return closed and "._start_serving(" in context.get("message", "")
