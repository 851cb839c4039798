"""How much may be written in how much time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """`burst` at once, and one more every `period` seconds. `now` is in seconds of a
    clock that never goes back."""

    burst: int
    period: float
    _level: float = field(init=False)
    _at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self._level = float(self.burst)

    def left(self, now: float) -> int:
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) / self.period)
            self._at = now
        return int(self._level + 1e-9)

    def take(self, now: float) -> bool:
        if self.left(now) < 1:
            return False
        self._level -= 1
        return True

    def wait(self, now: float) -> float:
        """Seconds until there is one; 0 when there is."""
        return 0.0 if self.left(now) >= 1 else (1 - self._level) * self.period
