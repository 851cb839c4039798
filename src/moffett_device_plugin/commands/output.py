"""Standard output, whatever it is: a terminal, a pipe that is closed, a full disk."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of text that is not for a terminal: nothing is wrapped or cut.
WIDTH_OF_A_PIPE = 1000


def prepare_streams() -> None:
    """Opens what the caller has closed (`>&-`), so that no other file gets its number,
    and makes characters that the encoding does not have question marks."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and not is_unicode(sys.stdout):
        reconfigure(errors="replace")


def discard_output() -> None:
    """What is still buffered for standard output is not written any more."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def is_unicode(stream: IO[str]) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def print_json(value: Any, stream: IO[str] | None = None) -> None:
    import json

    stream = stream or sys.stdout
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode(stream))
    print(text, file=stream)


def console() -> Console:
    """A console on standard output; not on a terminal, it is as wide as its text."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    made = _Console(highlight=False)
    if not made.is_terminal:
        made = _Console(highlight=False, width=WIDTH_OF_A_PIPE)
    return made


@contextmanager
def exits_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as an exception, so that whatever is open is closed."""

    def stop(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
