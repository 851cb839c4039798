"""A token bucket. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """Starts with `burst` tokens and gets one more every `period` seconds, up to `burst`.
    `now` is in seconds of a monotonic clock."""

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
        """Seconds until a token is available; 0 if one is."""
        return 0.0 if self.left(now) >= 1 else (1 - self._level) * self.period
