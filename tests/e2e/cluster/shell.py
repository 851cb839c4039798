"""Running commands and waiting for conditions: the two things every module here does."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1


class CommandError(RuntimeError):
    """A command ended with a non-zero status; the message carries what it printed."""

    def __init__(self, result: subprocess.CompletedProcess[str]) -> None:
        self.result = result
        output = "\n".join(part for part in (result.stdout, result.stderr) if part)
        super().__init__(f"{' '.join(map(str, result.args))}: exit {result.returncode}\n{output}")


class WaitTimeoutError(AssertionError):
    """A condition did not come true before its deadline."""


def run(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with its output captured; ``env`` adds to the environment."""
    result = subprocess.run(
        [str(word) for word in command],
        check=False,
        cwd=cwd,
        env={**os.environ, **env} if env else None,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and result.returncode != 0:
        raise CommandError(result)
    return result


def output(command: Sequence[str | Path], **options: object) -> str:
    """Return the standard output of a command that must succeed, stripped."""
    return run(command, **options).stdout.strip()  # type: ignore[arg-type]


def wait_for(
    what: str,
    condition: Callable[[], T | None],
    *,
    seconds: float,
    every: float = POLL_SECONDS,
    describe: Callable[[], str] | None = None,
) -> T:
    """Poll until ``condition`` returns something truthy and return it.

    ``describe`` adds the last known state to the message of a timeout, since "it did not
    happen" alone says little in a CI log.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            detail = f"\n{describe()}" if describe else ""
            raise WaitTimeoutError(f"not within {seconds:g} s: {what}{detail}")
        time.sleep(every)
