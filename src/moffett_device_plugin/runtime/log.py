"""One event per line: `time=... level=info event=device-found device=...`, or JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from typing import Any, Literal

Format = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}
_PLAIN = re.compile(r"[^\s\"=\\]+")


def set_up(form: Format, level: str) -> None:
    """Logs to standard error in this format, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # hpack logs each header at debug level, asyncio its own internals.
    for name in ("asyncio", "hpack"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Names of threads, processes and call sites are not logged: do not look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # documented: docs.python.org, logging


def quiet() -> None:
    """Logs nothing, for commands that print their result."""
    logging.getLogger(__name__.partition(".")[0]).addHandler(logging.NullHandler())


def fields_of(record: logging.LogRecord) -> Iterable[tuple[str, Any]]:
    """The fields of a record in order: time, level, event, then its details."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    yield "time", f"{stamp}.{int(record.msecs):03d}Z"
    yield "level", record.levelname.lower()
    yield "event", record.getMessage()
    for key, value in vars(record).items():
        if key not in _STANDARD:
            yield key, value
    if record.exc_info and record.exc_info[1] is not None:
        yield "exception", logging.Formatter().formatException(record.exc_info)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={text_value(value)}" for key, value in fields_of(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _quoted(dict(fields_of(record)))


def text_value(value: object) -> str:
    """A value of key=value: quoted if necessary, and always on one line.

    >>> text_value("two words")
    '"two words"'
    """
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        value = ",".join(str(item) for item in value)
    text = str(value)
    return text if text.isprintable() and _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(value: object) -> str:
    """As JSON without terminal control or bidirectional characters."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
