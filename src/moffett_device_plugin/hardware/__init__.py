"""The one small interface between the daemon and the machine.

Two implementations: `sysfs_hardware.SysfsHardware` (a real machine, or any directory
that looks like one) and `simulated.SimulatedNode`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from .types import BusScan, Mount, SmiReport


class SmiError(Exception):
    """mx-smi did not give an answer; the text says why, in one line."""


class SmiAbsentError(SmiError):
    """There is no mx-smi that could give one."""


class AbandonedError(Exception):
    """This look has been given up."""


@dataclass(slots=True)
class Look:
    """One look at the hardware, and how far it is. A read can be held by the kernel for
    seconds; whoever waits for the look then sees at which function it stands.

    `skip`: the functions whose hardware must not be touched, by bus ID. `reading`: the
    function that is being read now. `abandoned`: the result is not wanted any more.
    """

    skip: frozenset[str] = frozenset()
    reading: str | None = None
    abandoned: bool = False

    def begin(self, bus_id: str | None) -> None:
        """Raises AbandonedError."""
        if self.abandoned:
            raise AbandonedError
        self.reading = bus_id


class Hardware(Protocol):
    """What the daemon asks of a machine. No method changes anything there.

    `scan` and `registers` are called in a reader thread (`reader.Reader`), one at a time:
    they may block. All others are called in the event loop and must not.
    """

    @property
    def has_smi(self) -> bool:
        """Whether there is an mx-smi to ask at this moment."""

    def scan(self, look: Look) -> BusScan:
        """Everything the bus shows of its SPU functions: what cannot be read is left
        out or None. Raises OSError only where nothing can be read now for a reason of
        our own, such as no descriptors left. Calls `look.begin` before each function."""

    def registers(self, look: Look) -> object:
        """What can change without an event (configuration space, error counters), read
        as cheaply as possible, for the functions of the last `scan`. A new scan is due
        when it differs from that scan's `registers`."""

    def events(self) -> AsyncGenerator[None, None]:
        """Yields once when it begins to listen, and after that whenever something on
        the bus may have changed. Ends only with its task."""

    async def query_smi(self) -> SmiReport:
        """One run of mx-smi. Raises SmiError, within a deadline of its own."""

    def sola_version(self) -> str | None:
        """The version of the SOLA installation, when it is known without mx-smi."""

    def sola_mounts(self) -> tuple[Mount, ...] | None:
        """What of the SOLA installation a container needs; None when there is none."""
