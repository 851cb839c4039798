"""The one small interface between the daemon and the machine.

Two implementations: `hostroot.SysfsHardware` (a real machine, or any directory that
looks like one) and `simulated.SimulatedNode`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from .types import BusScan, Mount, SmiReport


class SmiError(Exception):
    """mx-smi did not give an answer; the text says why, in one line."""


class Hardware(Protocol):
    """What the daemon asks of a machine. No method changes anything there."""

    @property
    def has_smi(self) -> bool:
        """Whether there is an mx-smi to ask at this moment."""

    def scan(self) -> BusScan:
        """Everything the bus tells of its SPU functions: what cannot be read is left
        out or None. Raises OSError only where nothing can be read now for a reason of
        our own, such as no descriptors left."""

    def fingerprint(self) -> object:
        """A cheap digest of what can change without an event (config space, error
        counters) in the functions of the last `scan`; a new scan is due when it differs
        from what it was right after that."""

    def events(self) -> AsyncGenerator[None, None]:
        """Yields once when it begins to listen, and after that whenever something on
        the bus may have changed. Ends only with its task."""

    async def query_smi(self) -> SmiReport:
        """One run of mx-smi. Raises SmiError, within a deadline of its own."""

    def sola_version(self) -> str | None:
        """The version of the SOLA installation, when it can be told without mx-smi."""

    def sola_mounts(self) -> tuple[Mount, ...] | None:
        """What of the SOLA installation a container needs; None when there is none."""
