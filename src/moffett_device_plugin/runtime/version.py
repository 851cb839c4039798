"""Which source runs here: the version, and the commit where a build has written it down.

`_build.py` is written by the builds of the image and of the distributions, into what they
build and never into a checkout. Nothing here asks version control.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from .. import __version__

UNKNOWN = "unknown"

_COMMIT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Build:
    """`commit` is hexadecimal, with `-dirty` behind it if files differed from it; `date` is
    the commit's, or what SOURCE_DATE_EPOCH said (UTC, 2026-11-24T04:05:06Z). Each is
    `unknown` where no build has written it down."""

    version: str
    commit: str = UNKNOWN
    date: str = UNKNOWN

    def __str__(self) -> str:
        """For people: `v0.1.0 (commit 6057eae1c5d0, 2026-11-24T04:05:06Z)`."""
        digits, dash, state = self.commit.partition("-")
        date = "" if self.date == UNKNOWN else f", {self.date}"
        return f"v{self.version} (commit {digits[:_COMMIT_DIGITS]}{dash}{state}{date})"


def build() -> Build:
    """Return what the build has written down."""
    try:
        facts = import_module("moffett_device_plugin._build")
    except ModuleNotFoundError:
        return Build(__version__)
    return Build(
        __version__,
        getattr(facts, "COMMIT", UNKNOWN),
        getattr(facts, "DATE", UNKNOWN),
    )
