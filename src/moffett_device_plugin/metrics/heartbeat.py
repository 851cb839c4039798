"""Liveness of the daemon's loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Heartbeats:
    """The time of the last heartbeat of each loop.

    `limits`: by name, the seconds that may pass between two heartbeats. The time until
    the first one counts from the construction.
    """

    def __init__(
        self, limits: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = dict(limits)
        self._clock = clock
        self._last = dict.fromkeys(limits, clock())

    def expect(self, part: str, within: float) -> None:
        """Sets a new limit: the interval of the loop was changed."""
        self._limits[part] = within
        self.heartbeat(part)

    def heartbeat(self, part: str) -> None:
        self._last[part] = self._clock()

    def stalled(self) -> str | None:
        """Which loops have stalled, and for how long; None while all of them run."""
        now = self._clock()
        age = {part: now - self._last[part] for part in self._limits}
        stalled = [
            f"{part}: last heartbeat {age[part]:.0f} s ago, limit {limit:g} s"
            for part, limit in self._limits.items()
            if age[part] > limit
        ]
        return "; ".join(stalled) or None
