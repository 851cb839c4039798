"""Patterns of device nodes, as the settings name them: one meaning for all of them.

As in a shell: `*` and `?` stand for characters of one name, and never for a `/`; `[0-3]`
and `[!0-3]` for one character. `{index}` stands for a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate


def match_node(pattern: str, path: str) -> tuple[int, ...] | None:
    """The numbers that `{index}` stands for, None where `path` does not match."""
    patterns, names = pattern.split("/"), path.split("/")
    if len(patterns) != len(names):
        return None
    numbers: list[int] = []
    for one, name in zip(patterns, names, strict=True):
        expression = translate(one).replace(r"\{index\}", "([0-9]+)")
        if (match := re.match(expression, name)) is None:
            return None
        numbers += map(int, match.groups())
    return tuple(numbers)


def matches_any(path: str, patterns: Iterable[str]) -> bool:
    return any(match_node(pattern, path) is not None for pattern in patterns)


def error_of(pattern: str) -> str | None:
    """What is wrong with a pattern that could match no node."""
    for one in pattern.split("/"):
        rest = re.sub(r"\[!?\]?[^\]]*\]", "", one)
        if "[" in rest:
            return "a [ without its ]"
    if any(name in (".", "..") for name in pattern.split("/")) or "//" in pattern:
        return "no path of a device node has . or .. or // in it"
    return None
