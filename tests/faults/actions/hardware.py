"""Chips and cards: what they do by themselves, and what sysfs shows of it."""

from __future__ import annotations

import asyncio
import os
import shutil

from ..machine import COOL, HOT, Chip
from ..world import World
from .registry import action


def _some_chip(world: World) -> Chip:
    return world.pick(chip for chip in world.machine.chips if chip.present)


@action("chip-leaves")
async def chip_leaves(world: World) -> None:
    chip = _some_chip(world)
    world.machine.remove(chip)
    world.open[f"{chip.bus_id} is away"] = lambda: world.machine.add(chip)


@action("chip-blinks")
async def chip_blinks(world: World) -> None:
    """Gone, and back in less than a second."""
    chip = _some_chip(world)
    world.machine.remove(chip)
    await asyncio.sleep(world.chance.uniform(0, 0.8))
    world.machine.add(chip)


@action("chip-flaps")
async def chip_flaps(world: World) -> None:
    """So often and so fast that events overtake each other."""
    chip = _some_chip(world)
    for _ in range(world.chance.randint(5, 20)):
        world.machine.remove(chip)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.02, 0.06)))
        world.machine.add(chip)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.02, 0.06)))
        world.changed()


@action("card-reboots")
async def card_reboots(world: World) -> None:
    """All functions of a card are removed and found again: new minors, new counters."""
    chips = world.machine.on_card(world.pick({chip.card for chip in world.machine.chips}))
    for chip in chips:
        world.machine.remove(chip)
        await asyncio.sleep(world.chance.uniform(0, 0.05))
    await asyncio.sleep(world.chance.uniform(0, 1.5))
    for chip in chips:
        world.machine.reset(chip)
        world.machine.add(chip)
        await asyncio.sleep(world.chance.uniform(0, 0.2))


@action("all-cards-leave")
async def all_cards_leave(world: World) -> None:
    for chip in world.machine.chips:
        world.machine.remove(chip)

    def back() -> None:
        for chip in world.machine.chips:
            world.machine.add(chip)

    world.open["all cards are away"] = back


@action("driver-unbinds")
async def driver_unbinds(world: World) -> None:
    chip = world.pick(chip for chip in world.machine.chips if chip.present and chip.driver)
    world.machine.set_driver(chip, bound=False)
    world.open[f"{chip.bus_id} has no driver"] = lambda: world.machine.set_driver(chip, bound=True)


@action("config-all-ones")
async def config_all_ones(world: World) -> None:
    """The chip fell off its link; no event tells of it."""
    chip = _some_chip(world)
    world.machine.set_config(chip, responding=False)
    world.open[f"{chip.bus_id} is mute"] = lambda: world.machine.set_config(chip, responding=True)


@action("aer-fatal")
async def aer_fatal(world: World) -> None:
    chip = _some_chip(world)
    world.machine.set_aer(chip, world.chance.randint(1, 9))
    world.open[f"{chip.bus_id} had AER"] = lambda: world.machine.set_aer(chip, 0)


@action("ecc")
async def ecc(world: World) -> None:
    """Uncorrected memory errors, and more of them while they are there."""
    chip = _some_chip(world)
    for _ in range(world.chance.randint(1, 3)):
        world.machine.set_measured(chip, ecc=chip.ecc + world.chance.randint(1, 5))
        await asyncio.sleep(world.chance.uniform(0, 0.5))
    world.open[f"{chip.bus_id} has ECC"] = lambda: world.machine.set_measured(chip, ecc=0)


@action("heat")
async def heat(world: World) -> None:
    chip = _some_chip(world)
    world.machine.set_measured(chip, celsius=HOT)
    world.open[f"{chip.bus_id} is hot"] = lambda: world.machine.set_measured(chip, celsius=COOL)


@action("sensor-reads-zero")
async def sensor_reads_zero(world: World) -> None:
    """For a moment, as known of the field: it means nothing."""
    chip = world.pick(c for c in world.machine.chips if c.present and c.celsius == COOL)
    world.machine.set_measured(chip, celsius=0)
    await asyncio.sleep(world.chance.uniform(0, 1))
    if chip.celsius == 0:
        world.machine.set_measured(chip, celsius=COOL)


@action("firmware-lost")
async def firmware_lost(world: World) -> None:
    """mx-smi works and does not list the chip."""
    chip = _some_chip(world)
    world.machine.set_measured(chip, listed=False)
    world.open[f"{chip.bus_id} is unlisted"] = lambda: world.machine.set_measured(chip, listed=True)


@action("files-vanish")
async def files_vanish(world: World) -> None:
    """A chip's files go and come while they are read: any of them, in any order."""
    # What came back between two looks is told by inotify alone, on a tree of files.
    world.need(not world.without_inotify)
    chip = _some_chip(world)
    folder = (world.machine.host.sys / "bus/pci/devices" / chip.bus_id).resolve()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for _ in range(world.chance.randint(20, 80)):
        path = world.chance.choice(files)
        content = path.read_bytes()
        path.unlink()
        await asyncio.sleep(world.chance.choice((0, 0, 0.001, 0.005)))
        path.write_bytes(content)
        world.changed()


@action("folder-vanishes")
async def folder_vanishes(world: World) -> None:
    """What the listing names is no longer there when it is looked at, again and again."""
    chip = _some_chip(world)
    real = (world.machine.host.sys / "bus/pci/devices" / chip.bus_id).resolve()
    aside = world.scratch / "aside"
    for _ in range(world.chance.randint(5, 30)):
        os.rename(real, aside)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.03)))
        os.rename(aside, real)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.03)))
        world.changed()
    link = world.machine.host.sys / "bus/pci/devices" / chip.bus_id
    target = os.readlink(link)
    link.unlink()  # as the kernel lists what it has found
    link.symlink_to(target)


@action("strange-entries")
async def strange_entries(world: World) -> None:
    """Names and files that nobody expects, on the bus and among the devices."""
    bus = world.machine.host.sys / "bus/pci/devices"
    numbers = world.machine.host.sys / "dev/char"
    made = [bus / "0000:99:00.0", bus / "not-a-bus-id", bus / "0000:9a:00.0"]
    made[0].symlink_to("../nowhere")
    made[1].symlink_to(".")
    made[2].mkdir()
    (made[2] / "vendor").write_bytes(b"\xff\x00garbage" * 4000)
    (made[2] / "class").mkdir()
    os.mkfifo(made[2] / "device")
    for name in ("240:9999", "x" * 200, "240:-1"):
        made.append(numbers / name)
        made[-1].symlink_to("../../devices/" + "deep/" * 50)
    await asyncio.sleep(world.chance.uniform(0, 0.5))
    for path in made:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
