"""Which of the daemon's loops still turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Heartbeats:
    """Each part of the daemon `beat`s as often as its loop turns.

    `limits` are the parts and for how many seconds each may be silent. One that has
    not beaten yet is given as long from the start.
    """

    def __init__(
        self, limits: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = dict(limits)
        self._clock = clock
        self._last = dict.fromkeys(limits, clock())

    def expect(self, part: str, within: float) -> None:
        """Gives a part another limit: its pace was changed."""
        self._limits[part] = within
        self.heartbeat(part)

    def heartbeat(self, part: str) -> None:
        self._last[part] = self._clock()

    def stalled(self) -> str | None:
        """Which parts are silent, and for how long; None while all of them turn."""
        now = self._clock()
        silent = {part: now - self._last[part] for part in self._limits}
        late = [
            f"{part} has not moved for {silent[part]:.0f} s, and has {limit:g} s"
            for part, limit in self._limits.items()
            if silent[part] > limit
        ]
        return "; ".join(late) or None
