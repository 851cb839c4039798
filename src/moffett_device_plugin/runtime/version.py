"""Version and commit of the running plugin.

The builds of the image and of the distributions write `_build.py` into their result, never
into a checkout. Git is not called here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from .. import __version__

UNKNOWN = "unknown"

_COMMIT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Build:
    """`commit` is hexadecimal, with the suffix `-dirty` if files differed from it. `date` is
    that of the commit, or SOURCE_DATE_EPOCH (UTC, 2026-11-24T04:05:06Z). Both are
    `unknown` if the build did not record them."""

    version: str
    commit: str = UNKNOWN
    date: str = UNKNOWN

    def __str__(self) -> str:
        """For example `v0.2.0 (commit 6057eae1c5d0, 2026-11-24T04:05:06Z)`."""
        digits, dash, state = self.commit.partition("-")
        date = "" if self.date == UNKNOWN else f", {self.date}"
        return f"v{self.version} (commit {digits[:_COMMIT_DIGITS]}{dash}{state}{date})"


def build() -> Build:
    """What the build has recorded."""
    try:
        facts = import_module("moffett_device_plugin._build")
    except ModuleNotFoundError:
        return Build(__version__)
    return Build(
        __version__,
        getattr(facts, "COMMIT", UNKNOWN),
        getattr(facts, "DATE", UNKNOWN),
    )
