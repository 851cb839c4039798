"""A bound for what would otherwise never end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

#: Far more than anything here needs, and far less than what a wrong pattern takes.
SECONDS = 60.0


@contextmanager
def an_end(seconds: float = SECONDS) -> Iterator[None]:
    """Fails the test if the block has none."""

    def ring(*_: object) -> None:
        raise AssertionError(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
