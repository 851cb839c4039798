"""Runs checks so that none can block the others, or the doctor."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from .context import Context
from .findings import Check, Finding, fail, folded, skip, warn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Started(Generic[T]):
    """Work in a thread of its own. A thread that a broken driver or a dead file server
    blocks in the kernel cannot be stopped: it is left behind, and ends with the process."""

    future: Future[T]
    until: float

    def result(self) -> T:
        """Raises TimeoutError when the time is up, and whatever the work raised."""
        return self.future.result(max(0.0, self.until - time.monotonic()))


def start(work: Callable[[], T], deadline: float) -> Started[T]:
    """Begins at once. `deadline` is in seconds from now."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return Started(future, time.monotonic() + deadline)


def run_checks(checks: Sequence[Check], context: Context) -> Iterator[Finding]:
    """All at the same time; findings come in the order of `checks`, as soon as those
    before them are known. So the whole takes as long as the slowest check."""
    started = [(check, _start(check, context)) for check in checks]
    for check, running in started:
        for finding in folded(_findings(check, running)):
            yield replace(finding, check=check.name, layer=check.layer)


def _start(check: Check, context: Context) -> Started[list[Finding]]:
    return start(lambda: _look(check, context), check.deadline)


def _look(check: Check, context: Context) -> list[Finding]:
    if "devices" in check.needs and not context.devices:
        return [skip("no SPU was found")]
    if "nodes" in check.needs and context.simulated:
        return [skip("simulated devices have no nodes of their own")]
    if "kubelet-dir" in check.needs and not os.path.isdir(context.kubelet_dir):  # noqa: PTH112
        return [skip(f"there is no directory {context.kubelet_dir}: see kubelet-dir")]
    found = check.look(context)
    return [found] if isinstance(found, Finding) else list(found)


def _findings(check: Check, running: Started[list[Finding]]) -> Iterable[Finding]:
    try:
        return running.result()
    except TimeoutError:
        return [
            fail(
                f"no result in {check.deadline:g} s",
                "a read is blocked: look at the kernel's log (dmesg) for blocked tasks",
            )
        ]
    except Exception as error:
        text = f"could not be checked: {type(error).__name__}: {error}"
        return [warn(text, "report this, with the file that --bundle makes")]
