"""The kubelet: killed at every point of the exchange, stuck, forgetful, replaced."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from ..kubelet import POINTS, until_crashed
from ..world import NotNowError, World
from .registry import action


async def restart(world: World, pause: float = 0.0, *, wipe: bool = True) -> None:
    world.kubelet.kill()
    world.kubelet.publish_pods()
    await asyncio.sleep(pause)
    world.kubelet.choose_behaviour(world.chance)
    await world.kubelet.start(wipe=wipe)
    world.changed()


async def crash_at(world: World, point: str) -> bool:
    """Kills the kubelet there, and starts another. Whether it came to that point."""
    kubelet = world.kubelet
    kubelet.crashed.clear()
    kubelet.crash_at = point
    if point in ("allocate-asked", "preferred-asked"):
        await world.admit(1)  # refused, or given and forgotten, as the kubelet died
    else:
        await restart(world)
        kubelet.crash_at = kubelet.crash_at and point
    reached = await until_crashed(kubelet, 3.0)
    kubelet.crash_at = ""
    await restart(world, world.chance.choice((0.0, 0.0, 0.01, 0.3)))
    return reached


def _dies(point: str) -> Callable[[World], Awaitable[None]]:
    async def act(world: World) -> None:
        world.need(world.kubelet.running and world.plugin is not None)
        if not await crash_at(world, point):
            raise NotNowError

    return act


for _point in POINTS:
    action(f"kubelet-dies: {_point}", seconds=14)(_dies(_point))


@action("kubelet-restarts", seconds=14)
async def kubelet_restarts(world: World) -> None:
    await restart(world, world.chance.choice((0.0, 0.05, 0.6)), wipe=world.chance.random() < 0.8)


@action("kubelet-restarts-in-a-row", seconds=14)
async def kubelet_restarts_in_a_row(world: World) -> None:
    """As one that crashes at start: each time somewhere else in the exchange."""
    for _ in range(world.chance.randint(2, 8)):
        await restart(world, world.chance.choice((0.0, 0.001, 0.02)))
        await asyncio.sleep(world.chance.choice((0.0, 0.001, 0.005, 0.05)))


@action("kubelet-away", seconds=14)
async def kubelet_away(world: World) -> None:
    world.need(world.kubelet.running)
    world.kubelet.kill()
    world.open["the kubelet is away"] = lambda: _unless_there(world)


async def _unless_there(world: World) -> None:
    if not world.kubelet.running:
        await restart(world)


@action("kubelet-refuses", seconds=16)
async def kubelet_refuses(world: World) -> None:
    await _for_a_while(world, "refuse")


@action("kubelet-hangs-in-register", seconds=16)
async def kubelet_hangs_in_register(world: World) -> None:
    await _for_a_while(world, "hang")


async def _for_a_while(world: World, how: str) -> None:
    """A kubelet that treats registrations so, until another takes its place."""
    with world.blocked(how):
        await restart(world)
        world.kubelet.behaviour = replace(world.kubelet.behaviour, register=how)  # type: ignore[arg-type]
        world.kubelet.kill()
        await world.kubelet.start()
        await asyncio.sleep(world.chance.uniform(0.1, 1.5))
        await restart(world)


@action("kubelet-never-dials", seconds=30)
async def kubelet_never_dials(world: World) -> None:
    """It takes a registration and forgets it; later it does as it should."""
    with world.blocked("never dials"):
        await restart(world)
        usual = world.kubelet.behaviour
        world.kubelet.behaviour = replace(usual, dial="never")
        world.kubelet.kill()
        await world.kubelet.start()
        await asyncio.sleep(world.chance.uniform(0.1, 1.0))
        world.kubelet.behaviour = usual


@action("kubelet-socket-replaced", seconds=14)
async def kubelet_socket_replaced(world: World) -> None:
    """Another kubelet takes the socket's place while the old one still hangs around."""
    world.need(world.kubelet.running)
    world.kubelet.stop_accepting()
    await asyncio.sleep(world.chance.choice((0.0, 0.1)))
    world.kubelet.choose_behaviour(world.chance)
    await world.kubelet.start(wipe=False)


@action("kubelet-socket-is-something-else", seconds=14)
async def kubelet_socket_is_something_else(world: World) -> None:
    """A file, a directory's link, or a socket that nobody listens on, for a moment."""
    path = world.kubelet.socket
    world.kubelet.kill()
    with suppress(OSError):
        path.unlink(missing_ok=True)
        kind = world.chance.choice(("file", "link", "deaf"))
        if kind == "file":
            path.write_text("not a socket")
        elif kind == "link":
            path.symlink_to("/dev/null")
        else:
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.bind(str(path))
    await asyncio.sleep(world.chance.uniform(0, 1.0))
    path.unlink(missing_ok=True)
    await restart(world)


@action("own-sockets-deleted", seconds=14)
async def own_sockets_deleted(world: World) -> None:
    for path in world.kubelet_dir.glob("spu-*.sock"):
        path.unlink(missing_ok=True)


@action("stream-cut", seconds=14)
async def stream_cut(world: World) -> None:
    world.kubelet.disconnect(world.pick(world.kubelet.resources()))
