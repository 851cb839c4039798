"""Where the readings of mx-smi come from."""

from __future__ import annotations

from typing import Protocol

from .types import SmiReport


class SmiSource(Protocol):
    """An mx-smi that is run here (`smi_command.SmiCommand`), or in another container
    (`telemetry.client.TelemetryClient`). Used in the event loop."""

    @property
    def present(self) -> bool:
        """Whether there is something to ask at this moment. Does not block."""

    async def query(self) -> SmiReport:
        """The answer to a run of mx-smi that begins after this call. Raises SmiError,
        within a deadline of its own."""


class NoSmi:
    """No mx-smi, by configuration."""

    present = False

    async def query(self) -> SmiReport:
        raise AssertionError("it is never present")
