"""What the driver counts. Numbers only, as in runtime.counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..runtime.counters import Histogram


@dataclass(slots=True)
class DriverStats:
    """Since the driver started. `refused` by code; `swept` are records that were
    removed because their claims no longer exist; `restored` those put back."""

    prepared: int = 0
    unprepared: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unprepare_failures: int = 0
    swept: int = 0
    restored: int = 0
    registrations: int = 0
    prepare_seconds: Histogram = field(default_factory=Histogram)
    unprepare_seconds: Histogram = field(default_factory=Histogram)
