"""Faults of devices and cards, and of what sysfs shows of them."""

from __future__ import annotations

import asyncio
import os
import shutil

from ..machine import COOL, HOT, Device
from ..world import World
from .registry import action


def _some_device(world: World) -> Device:
    return world.pick(device for device in world.machine.devices if device.present)


@action("device-leaves")
async def device_leaves(world: World) -> None:
    device = _some_device(world)
    world.machine.remove(device)
    world.open[f"{device.bus_id} is away"] = lambda: world.machine.add(device)


@action("device-blinks")
async def device_blinks(world: World) -> None:
    """Gone, and back in less than a second."""
    device = _some_device(world)
    world.machine.remove(device)
    await asyncio.sleep(world.chance.uniform(0, 0.8))
    world.machine.add(device)


@action("device-flaps")
async def device_flaps(world: World) -> None:
    """So often and so fast that events overtake each other."""
    device = _some_device(world)
    for _ in range(world.chance.randint(5, 20)):
        world.machine.remove(device)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.02, 0.06)))
        world.machine.add(device)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.02, 0.06)))
        world.changed()


@action("card-reboots")
async def card_reboots(world: World) -> None:
    """All functions of a card are removed and found again: new minors, new counters."""
    devices = world.machine.on_card(world.pick({device.card for device in world.machine.devices}))
    for device in devices:
        world.machine.remove(device)
        await asyncio.sleep(world.chance.uniform(0, 0.05))
    await asyncio.sleep(world.chance.uniform(0, 1.5))
    for device in devices:
        world.machine.reset(device)
        world.machine.add(device)
        await asyncio.sleep(world.chance.uniform(0, 0.2))


@action("all-cards-leave")
async def all_cards_leave(world: World) -> None:
    for device in world.machine.devices:
        world.machine.remove(device)

    def back() -> None:
        for device in world.machine.devices:
            world.machine.add(device)

    world.open["all cards are away"] = back


@action("driver-unbinds")
async def driver_unbinds(world: World) -> None:
    device = world.pick(
        device for device in world.machine.devices if device.present and device.driver
    )
    world.machine.set_driver(device, bound=False)
    world.open[f"{device.bus_id} has no driver"] = lambda: world.machine.set_driver(
        device, bound=True
    )


@action("config-all-ones")
async def config_all_ones(world: World) -> None:
    """The device lost its link; no event reports it."""
    device = _some_device(world)
    world.machine.set_config(device, responding=False)
    world.open[f"{device.bus_id} is mute"] = lambda: world.machine.set_config(
        device, responding=True
    )


@action("aer-fatal")
async def aer_fatal(world: World) -> None:
    device = _some_device(world)
    world.machine.set_aer(device, world.chance.randint(1, 9))
    world.open[f"{device.bus_id} had AER"] = lambda: world.machine.set_aer(device, 0)


@action("ecc")
async def ecc(world: World) -> None:
    """Uncorrected memory errors, and then more of them."""
    device = _some_device(world)
    for _ in range(world.chance.randint(1, 3)):
        world.machine.set_measured(device, ecc=device.ecc + world.chance.randint(1, 5))
        await asyncio.sleep(world.chance.uniform(0, 0.5))
    world.open[f"{device.bus_id} has ECC"] = lambda: world.machine.set_measured(device, ecc=0)


@action("heat")
async def heat(world: World) -> None:
    device = _some_device(world)
    world.machine.set_measured(device, celsius=HOT)
    world.open[f"{device.bus_id} is hot"] = lambda: world.machine.set_measured(device, celsius=COOL)


@action("sensor-reads-zero")
async def sensor_reads_zero(world: World) -> None:
    """For a moment, as observed in the field: it is not a fault."""
    device = world.pick(c for c in world.machine.devices if c.present and c.celsius == COOL)
    world.machine.set_measured(device, celsius=0)
    await asyncio.sleep(world.chance.uniform(0, 1))
    if device.celsius == 0:
        world.machine.set_measured(device, celsius=COOL)


@action("firmware-lost")
async def firmware_lost(world: World) -> None:
    """mx-smi works and does not list the device."""
    device = _some_device(world)
    world.machine.set_measured(device, listed=False)
    world.open[f"{device.bus_id} is unlisted"] = lambda: world.machine.set_measured(
        device, listed=True
    )


@action("files-vanish")
async def files_vanish(world: World) -> None:
    """A device's files are deleted and created while they are read, in any order."""
    # On a tree of files, only inotify reports what came back between two reads.
    world.need(not world.without_inotify)
    device = _some_device(world)
    folder = (world.machine.host.sys / "bus/pci/devices" / device.bus_id).resolve()
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
    """A listed directory is absent when it is read, several times."""
    device = _some_device(world)
    real = (world.machine.host.sys / "bus/pci/devices" / device.bus_id).resolve()
    aside = world.scratch / "aside"
    for _ in range(world.chance.randint(5, 30)):
        os.rename(real, aside)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.03)))
        os.rename(aside, real)
        await asyncio.sleep(world.chance.choice((0, 0.001, 0.03)))
        world.changed()
    link = world.machine.host.sys / "bus/pci/devices" / device.bus_id
    target = os.readlink(link)
    link.unlink()  # the kernel lists a function again in this way
    link.symlink_to(target)


@action("strange-entries")
async def strange_entries(world: World) -> None:
    """Unexpected names and files, on the bus and among the devices."""
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
