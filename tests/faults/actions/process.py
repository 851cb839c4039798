"""The daemon's own process: killed, ended, replaced, stopped."""

from __future__ import annotations

import asyncio
import signal

from ..world import World
from .exchange import restart
from .registry import action


@action("plugin-killed", seconds=14, ends=True)
async def plugin_killed(world: World) -> None:
    world.need(world.plugin)
    await world.end_plugin(signal.SIGKILL)
    await asyncio.sleep(world.chance.choice((0.0, 0.3)))
    await world.start_plugin()


@action("plugin-terminated", seconds=14, ends=True)
async def plugin_terminated(world: World) -> None:
    world.need(world.plugin)
    await world.end_plugin(signal.SIGTERM)
    await world.start_plugin()


@action("plugin-killed-at-start", seconds=14, ends=True)
async def plugin_killed_at_start(world: World) -> None:
    """Wherever it is by then."""
    world.need(world.plugin)
    await world.end_plugin(signal.SIGKILL)
    for _ in range(world.chance.randint(1, 4)):
        await world.start_plugin()
        await asyncio.sleep(world.chance.uniform(0, 0.4))
        await world.end_plugin(world.chance.choice((signal.SIGKILL, signal.SIGTERM)))
    await world.start_plugin()


@action("plugin-rolled", seconds=14, ends=True)
async def plugin_rolled(world: World) -> None:
    """A new copy beside the old one, which then ends, in order or not."""
    old = world.plugin
    world.need(old)
    await world.start_plugin()
    await asyncio.sleep(world.chance.uniform(0, 1.5))
    await world.end_plugin(world.chance.choice((signal.SIGTERM, signal.SIGKILL)), old)


@action("plugin-and-kubelet-die-together", seconds=14, ends=True)
async def plugin_and_kubelet_die_together(world: World) -> None:
    """As when a node loses its power: everything starts again, in any order."""
    world.need(world.plugin)
    await world.end_plugin(signal.SIGKILL)
    if world.chance.random() < 0.5:
        await restart(world, world.chance.uniform(0, 0.3))
        await world.start_plugin()
    else:
        world.kubelet.kill()
        await world.start_plugin()
        await asyncio.sleep(world.chance.uniform(0, 1.0))
        await restart(world)


@action("plugin-stopped")
async def plugin_stopped(world: World) -> None:
    """SIGSTOP for a while, SIGCONT: all that was to be done in between is overdue."""
    plugin = world.plugin
    world.need(plugin is not None)
    assert plugin is not None
    with world.blocked("stopped"):
        plugin.stop()
        await asyncio.sleep(world.chance.uniform(0.1, 3.0))
        plugin.resume()
