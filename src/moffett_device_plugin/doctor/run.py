"""Runs checks so that none can hold up the others, or the doctor."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from .context import Context
from .findings import Check, Finding, fail, warn

T = TypeVar("T")
#: Seconds that a check may take unless it says otherwise.
DEADLINE = 5.0


@dataclass(frozen=True, slots=True)
class Started(Generic[T]):
    """Work in a thread. A thread that a broken driver or a dead file server holds in
    the kernel cannot be ended, so it is left behind, and ends with the process."""

    answers: queue.SimpleQueue[tuple[T | None, Exception | None]]
    until: float

    def result(self) -> T:
        """Raises TimeoutError when the time is up, and whatever the work raised."""
        try:
            value, error = self.answers.get(timeout=max(0.0, self.until - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # (it is the work's own)


def start(work: Callable[[], T], deadline: float) -> Started[T]:
    """Begins at once. `deadline` is in seconds from now."""
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    return Started(answers, time.monotonic() + deadline)


def run_checks(checks: Sequence[Check], context: Context) -> Iterator[Finding]:
    """All at the same time; findings come in the order of `checks`, as soon as those
    before them are known. So the whole takes as long as the slowest check."""
    started = [(check, _start(check, context)) for check in checks]
    for check, running in started:
        for finding in _findings(check, running):
            yield replace(finding, check=check.name, layer=check.layer)


def _start(check: Check, context: Context) -> Started[list[Finding]]:
    return start(lambda: list(check.look(context)), _deadline(check))


def _deadline(check: Check) -> float:
    return DEADLINE if check.deadline is None else check.deadline


def _findings(check: Check, running: Started[list[Finding]]) -> Iterable[Finding]:
    try:
        return running.result()
    except TimeoutError:
        return [
            fail(
                f"no answer in {_deadline(check):g} s",
                "something that it reads hangs: look at the kernel's log (dmesg) for blocked tasks",
            )
        ]
    except Exception as error:
        text = f"could not be checked: {type(error).__name__}: {error}"
        return [warn(text, "report this, with the file that --bundle makes")]
