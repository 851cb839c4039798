"""What is not left to chance: the kubelet dies at every point of the exchange, in order,
once for each kind of kubelet; and devices move from every name to every other under pods
that hold some of them."""

from __future__ import annotations

import random
import signal

from .actions.configuration import change_to
from .actions.exchange import crash_at, restart
from .campaign import Campaign
from .invariants import InvariantError
from .kubelet import BEHAVIOURS, POINTS
from .world import SHAPES


async def every_point(campaign: Campaign) -> None:
    """Raises InvariantError."""
    world, record = campaign.world, campaign.record
    for kind in BEHAVIOURS:
        world.kubelet.behaviours = (kind,)
        for point in POINTS:
            world.chance = random.Random(point)
            await restart(world)
            await campaign.settle()
            record.add(f"{kind.dial}, ends {kind.ends}: dies: {point}")
            if not await crash_at(world, point):
                raise InvariantError("every-point", f"nothing came to {point}")
            record.done(f"kubelet-dies: {point}")
            await campaign.settle()
    world.kubelet.behaviours = BEHAVIOURS


async def every_name(campaign: Campaign) -> None:
    """Under each name some units are taken; under the next as many as there are. The
    guard sees to it that nothing is taken twice. Raises InvariantError."""
    world, record = campaign.world, campaign.record
    names = [name for name in SHAPES if name != "ecc-off"]
    for first in names:
        for second in names:
            if first == second:
                continue
            for pod in list(world.kubelet.pods.values()):
                world.end_pod(pod)
            change_to(world, first)
            await campaign.settle()
            for _ in range(2):
                await world.admit(1)
            record.add(f"from {first} to {second} under {len(world.kubelet.pods)} pods")
            change_to(world, second)
            await campaign.settle()
            while await world.admit(1) is not None:
                pass
            world.check()
            record.done("config-changes")
    for pod in list(world.kubelet.pods.values()):
        world.end_pod(pod)
    change_to(world, "devices")
    # Another one knows at once that nothing is held; this one would in half a minute.
    await world.end_plugin(signal.SIGTERM)
    await world.start_plugin()
    await campaign.settle()
