"""mx-smi: it hangs, crashes, lies and disappears."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..machine import SMI_FAULTS
from ..world import World
from .registry import action


def _misbehaves(mode: str) -> Callable[[World], Awaitable[None]]:
    async def act(world: World) -> None:
        world.machine.set_smi(mode)
        world.open["mx-smi"] = lambda: world.machine.set_smi("ok")

    return act


for _mode in SMI_FAULTS:
    action(f"mx-smi: {_mode}")(_misbehaves(_mode))


@action("mx-smi-uninstalled")
async def mx_smi_uninstalled(world: World) -> None:
    machine = world.machine
    world.need(machine.smi_installed)
    aside = machine.smi.with_name("mx-smi.aside")
    machine.smi.rename(aside)
    machine.smi_installed = False

    def back() -> None:
        aside.rename(machine.smi)
        machine.smi_installed = True

    world.open["mx-smi is uninstalled"] = back


@action("mx-smi-not-executable")
async def mx_smi_not_executable(world: World) -> None:
    """As in the middle of an upgrade; and what takes its place is no program."""
    machine = world.machine
    world.need(machine.smi_installed)
    aside, new = machine.smi.with_name("mx-smi.aside"), machine.smi.with_name("mx-smi.new")
    machine.smi.rename(aside)
    new.write_bytes(b"\x7fELF" + bytes(world.chance.randint(0, 64)))
    new.chmod(world.chance.choice((0o644, 0o755)))
    new.rename(machine.smi)
    machine.smi_installed = False

    def back() -> None:
        aside.rename(machine.smi)
        machine.smi_installed = True

    world.open["mx-smi is no program"] = back
