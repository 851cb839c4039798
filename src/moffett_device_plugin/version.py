"""Which source runs here: the version, and the commit where a build has written it down.

`_build.py` is written by the builds of the image and of the distributions, into what they
build and never into a checkout. Nothing here asks version control.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from . import __version__

UNKNOWN = "unknown"

_COMMIT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Build:
    """`commit` is hexadecimal, with `-dirty` behind it if files differed from it; `date` is
    the commit's day (UTC, 2026-11-24). Each is `unknown` where no build has said it."""

    version: str
    commit: str = UNKNOWN
    date: str = UNKNOWN

    def __str__(self) -> str:
        """
        >>> str(Build("0.1.0", "6057eae1c5d0b0c4f6f2a3d4e5f60718293a4b5c-dirty", "2026-11-24"))
        'v0.1.0 (commit 6057eae1c5d0-dirty of 2026-11-24)'
        >>> str(Build("0.1.0"))
        'v0.1.0 (commit unknown)'
        """
        digits, dash, state = self.commit.partition("-")
        commit = digits[:_COMMIT_DIGITS] + dash + state
        day = "" if self.date == UNKNOWN else f" of {self.date}"
        return f"v{self.version} (commit {commit}{day})"


def build() -> Build:
    """Return what the build has written down."""
    try:
        facts = import_module("._build", __package__)
    except ModuleNotFoundError:
        return Build(__version__)
    return Build(
        __version__,
        getattr(facts, "COMMIT", UNKNOWN),
        getattr(facts, "DATE", UNKNOWN),
    )
