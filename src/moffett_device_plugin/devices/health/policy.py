"""Which health rules apply, and their limits.

The setting is a list of `RULE=VALUE`: `over-temperature=95/85,ecc-corrected=off`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ...runtime.errors import ConfigurationError
from .rules import RULES

#: Every rule that can be set, with its default limits; () for a rule without any.
LIMITS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {rule.code: rule.limits for rule in RULES}
)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """`recovery_seconds`: how long a cause must be gone before the device is healthy;
    `flapping_seconds`: the same after its second, third... fault within a day."""

    limits: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: LIMITS)
    off: frozenset[str] = frozenset()
    warn: frozenset[str] = frozenset()  # only warnings, whatever the rule itself says
    recovery_seconds: float = 5.0
    flapping_seconds: tuple[float, ...] = ()


def parse_rules(items: str, key: str = "--health") -> HealthPolicy:
    """Raises ConfigurationError that names the rule, the value and what is allowed."""
    limits, off, warn = dict(LIMITS), set(), set()
    for item in filter(None, (part.strip() for part in items.split(","))):
        rule, separator, value = item.partition("=")
        if rule not in LIMITS:
            from difflib import get_close_matches  # costs 0.3 MiB, for an error only

            near = get_close_matches(rule, LIMITS, 1)
            hint = f"did you mean {near[0]}?" if near else f"rules: {', '.join(LIMITS)}"
            raise ConfigurationError(key, item, f"there is no such rule; {hint}")
        off.discard(rule)
        warn.discard(rule)
        if value in ("off", "false"):
            off.add(rule)
            continue
        if value == "warning":
            warn.add(rule)
            continue
        if value in ("on", "true"):
            continue
        limits[rule] = _limits(rule, value if separator else "", key, item)
    return HealthPolicy(limits, frozenset(off), frozenset(warn))


def _limits(rule: str, value: str, key: str, item: str) -> tuple[float, ...]:
    default = LIMITS[rule]
    form = {
        0: "on, off or warning",
        1: "on, off, warning or a number",
        2: "on, off, warning, FAIL or FAIL/RECOVER",
    }
    remedy = f"{rule} takes {form[len(default)]}"
    try:
        numbers = tuple(float(part) for part in value.split("/"))
    except ValueError:
        raise ConfigurationError(key, item, remedy) from None
    if len(default) == 2 and len(numbers) == 1:
        # Keep the default's distance between failing and coming back.
        numbers = (numbers[0], numbers[0] - (default[0] - default[1]))
    if len(numbers) != len(default) or any(not 0 <= n < 1e9 for n in numbers):
        raise ConfigurationError(key, item, remedy)
    if len(numbers) == 2 and numbers[1] > numbers[0]:
        raise ConfigurationError(key, item, "the limit to come back must not be above the other")
    return numbers
