"""What the tests measured, for the summary; nothing is judged by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Measured:
    """What the tests measured. An act's times are told by where it happened: on the kernel's
    own bus, or on a tree of files."""

    lines: list[str] = field(default_factory=list)
    acts: dict[str, dict[str, float]] = field(default_factory=dict)

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def act(self, name: str, seconds: float, place: str = "kernel") -> None:
        """Note how long it took from an act to the list that shows it."""
        self.acts.setdefault(name, {})[place] = seconds

    def table(self) -> Iterator[str]:
        """The acts, a line each."""
        width = max(map(len, self.acts), default=0)
        for name, times in self.acts.items():
            shown = ", ".join(f"{place} {seconds:.2f} s" for place, seconds in times.items())
            yield f"{name:<{width}} {shown}"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return time.monotonic() - self._began
