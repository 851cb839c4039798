"""What runs out: space, inodes, descriptors, watches."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ..world import World
from .registry import action


def fill(folder: Path) -> None:
    """Takes all there is, in a folder of its own: neither byte nor inode is left."""
    filler = folder / "filler"
    with suppress(OSError):
        filler.mkdir()
    with suppress(OSError), (filler / "data").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with suppress(OSError):
        for number in range(10_000):
            (filler / str(number)).touch()


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "filler", ignore_errors=True)


@action("disk-full: device-plugins", seconds=14)
async def devices_full(world: World) -> None:
    world.need(world.small)
    fill(world.kubelet_dir)
    world.block("the kubelet's directory is full")  # no new socket for a registration

    def back() -> None:
        empty(world.kubelet_dir)
        world.unblock("the kubelet's directory is full")

    world.open["disk-full: device-plugins"] = back


@action("disk-full: cdi", seconds=14)
async def cdi_full(world: World) -> None:
    world.need(world.small)
    fill(world.cdi_dir)
    world.cdi_full_since = world.advertised_now
    world.open["disk-full: cdi"] = lambda: empty(world.cdi_dir)


@action("disk-full: nfd")
async def nfd_full(world: World) -> None:
    world.need(world.small)
    fill(world.nfd_file.parent)
    world.open["disk-full: nfd"] = lambda: empty(world.nfd_file.parent)


@action("no-descriptors", seconds=16)
async def no_descriptors(world: World) -> None:
    """EMFILE for whatever the daemon opens, or soon."""
    # One that starts cannot load its own code then, and is no daemon yet.
    world.need(world.plugin and world.plugin.logged("registered"))
    world.need("no-descriptors" not in world.open)
    world.limit_descriptors(world.chance.choice((0, 0, 1, 3)))
    world.block("no descriptors")

    def back() -> None:
        world.limit_descriptors(None)
        world.unblock("no descriptors")

    world.open["no-descriptors"] = back


@action("no-inotify")
async def no_inotify(world: World) -> None:
    """No watches left for what comes new, and none for a daemon that starts."""
    world.need(world.limits.ours)
    world.limits.forbid()
    world.without_inotify = True
    world.open["no-inotify"] = world.limits.restore
