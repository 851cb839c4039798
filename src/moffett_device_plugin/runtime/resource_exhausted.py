"""Errors of exhausted resources (descriptors, memory, buffers). They say nothing about the
file of the failed call, and must not be mistaken for its absence."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)

_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
#: Seconds after which an ongoing problem is logged again.
_REPEAT = 600.0


def is_resource_exhausted(error: BaseException | None) -> bool:
    """Whether the call failed for lack of a descriptor, memory or a buffer.

    >>> [is_resource_exhausted(OSError(number, "")) for number in (errno.EMFILE, errno.ENOENT)]
    [True, False]
    """
    return isinstance(error, OSError) and error.errno in _ERRORS


def log_resource_exhaustion_once(loop: asyncio.AbstractEventLoop) -> None:
    """Limits how often the loop logs that a connection cannot be accepted: asyncio retries
    every second and would log a traceback each time. Other errors are logged as usual."""
    logged_at = float("-inf")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal logged_at
        error = context.get("exception")
        if not is_resource_exhausted(error):
            if not _is_about_a_closed_listener(context):
                loop.default_exception_handler(context)
        elif loop.time() - logged_at > _REPEAT:
            logged_at = loop.time()
            log.warning(
                "exhausted",
                extra={
                    "error": getattr(error, "strerror", None) or error,
                    "effect": "new connections wait; the plugin retries",
                    "remedy": "find the process that holds them, or raise the limit",
                },
            )

    loop.set_exception_handler(handle)


def _is_about_a_closed_listener(context: dict[str, Any]) -> bool:
    """asyncio does not check whether the listener was closed before it retries. That is
    not an error."""
    closed = isinstance(context.get("exception"), ValueError)
    return closed and "._start_serving(" in context.get("message", "")
