"""The wall clock."""

from __future__ import annotations

import asyncio

from ..world import World
from .registry import action

HOUR, YEAR = 3600, 365 * 86_400


@action("clock-jumps")
async def clock_jumps(world: World) -> None:
    """To and fro, by seconds or by years; nothing that is decided may depend on it."""
    for _ in range(world.chance.randint(1, 5)):
        jump = world.chance.choice((-30 * YEAR, -HOUR, -1, 1, HOUR, 30 * YEAR))
        await world.move_clock(jump)
        await asyncio.sleep(world.chance.uniform(0, 0.4))
    world.open["the clock is wrong"] = lambda: world.move_clock(0)
