"""All checks, in the order they run in."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from . import allocation, listing, malformed, preference, registration, restarts, shutdown
from . import transitions as health
from .outcome import Outcome
from .rig import Rig

Check = Callable[[Rig], Awaitable[Outcome]]

#: `registers` is the first: where it fails, there is nothing else to check.
CHECKS: tuple[Check, ...] = (
    *registration.CHECKS,
    *listing.CHECKS,
    *preference.CHECKS,
    *allocation.CHECKS,
    *health.CHECKS,
    *restarts.CHECKS,
    *malformed.CHECKS,
    *shutdown.CHECKS,
)


def name_of(check: Check) -> str:
    """As `--only` and `--skip` have it."""
    return str(getattr(check, "__name__")).replace("_", "-")  # noqa: B009  (a Callable's)


def subject_of(check: Check) -> str:
    """The file it is in."""
    return check.__module__.rpartition(".")[2]


def rule_of(check: Check) -> str:
    """Which rule it holds a plugin to, on one line."""
    return " ".join((inspect.getdoc(check) or "").split())
