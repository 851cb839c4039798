"""The configuration file: changed, half-written, broken, lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..world import SHAPES, World
from .registry import action


def _can_read(world: World) -> None:
    # Without inotify, or without descriptors to read it, the file is read every 30 s.
    world.need(not world.without_inotify and "no-descriptors" not in world.open)


def _runs(world: World) -> None:
    """A daemon that starts with a file that is no use ends, as it should."""
    world.need(world.plugins and all(plugin.logged("starting") for plugin in world.plugins))


def _put(path: Path, text: str) -> None:
    new = path.with_name("config.new")
    new.write_text(text)
    new.replace(path)


def change_to(world: World, name: str) -> None:
    """One of SHAPES, whole and at once."""
    world.shape = SHAPES[name][0]
    _put(world.config, _text(world, name))
    world.changed()


def _text(world: World, name: str) -> str:
    return f"version: v1\n# {world.chance.random()}\n{SHAPES[name][1]}"


@action("config-changes")
async def config_changes(world: World) -> None:
    """Other resources, or other rules, in a file that takes the old one's place."""
    _can_read(world)
    change_to(world, world.chance.choice(sorted(SHAPES)))


@action("config-rewritten-half-way")
async def config_rewritten_half_way(world: World) -> None:
    """In place, in two steps with a pause between them."""
    _can_read(world)
    _runs(world)
    name = world.chance.choice(sorted(SHAPES))
    text = _text(world, name)
    half = world.chance.randint(0, len(text))
    with world.blocked("the file is written"):
        with world.config.open("w") as file:
            file.write(text[:half])
            file.flush()
            await asyncio.sleep(world.chance.choice((0.0, 0.01, 0.06, 0.3)))
            file.write(text[half:])
        world.shape = SHAPES[name][0]


@action("config-broken")
async def config_broken(world: World) -> None:
    """Something invalid stands there for a while; what held before goes on."""
    _can_read(world)
    _runs(world)
    before = world.config.read_text()
    wrong = (
        "version: v1\nresources: [{granularity: device}]\n",
        "version: v1\nresources: [{granularity: [",
        "&a [*a, *a]\n" * 2000,
        "version: v9\n",
        "\x00\xff" * 100,
        "x" * 2_000_000,
    )
    _put(world.config, world.chance.choice(wrong))
    await asyncio.sleep(world.chance.uniform(0, 0.7))
    _put(world.config, before)


@action("config-deleted")
async def config_deleted(world: World) -> None:
    _can_read(world)
    _runs(world)
    before = world.config.read_text()
    world.config.unlink()
    await asyncio.sleep(world.chance.uniform(0, 0.7))
    _put(world.config, before)
