"""What a fault is, and the list of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..world import World

Act = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Action:
    """`seconds`: how long it may take until the list is right again, once it is over, if
    that is longer than usual. `ends`: it ends the daemon's process."""

    name: str
    act: Act
    seconds: float = 0.0
    ends: bool = False


ACTIONS: dict[str, Action] = {}


def action(name: str, *, seconds: float = 0.0, ends: bool = False) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        assert name not in ACTIONS, name
        ACTIONS[name] = Action(name, act, seconds, ends)
        return act

    return add
