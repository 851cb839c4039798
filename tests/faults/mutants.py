"""Deliberate defects of the daemon, to show that the campaign finds what it looks for.
Each is applied in the daemon's process by preload/sitecustomize.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

PACKAGE = "moffett_device_plugin"


def never_recovers() -> None:
    """What was once sick stays so: the commonest complaint about device plugins."""
    evaluate = _module("health.judge")
    original, first = evaluate.reasons_of, dict[str, Any]()

    def reasons_of(device: Any, *rest: Any) -> Any:
        reasons = original(device, *rest)
        if any(reason.severity == "unhealthy" for reason in reasons):
            first.setdefault(device.id, reasons)
        return first.get(device.id, reasons)

    evaluate.reasons_of = reasons_of


def tells_at_every_poll() -> None:
    """The log says what is wrong each time mx-smi is asked."""
    monitor = _module("monitor").Monitor
    original = monitor.ask_smi

    async def ask_smi(self: Any) -> None:
        await original(self)
        for device_id, health_status in self.state.value.health_statuses.items():
            if not health_status.healthy:
                logging.getLogger(PACKAGE).error("device-unhealthy", extra={"device": device_id})

    monitor.ask_smi = ask_smi


def leaks_descriptors() -> None:
    """Files of chips that left stay open."""

    def close(self: Any) -> None:
        self._open = None

    _module("hardware.probes").Probes.close = close


def leaks_memory() -> None:
    """Each run of mx-smi leaves something behind for ever."""
    command = _module("hardware.smi_command").SmiCommand
    original, kept = command.query, list[bytes]()

    async def query(self: Any) -> Any:
        kept.append(b"\1" * 200_000)
        return await original(self)

    command.query = query


def gives_twice() -> None:
    """A chip that a pod holds under another name looks free."""
    _module("offers").mark_conflicts = lambda pool, *_: pool


def old_nodes() -> None:
    """A chip's first device node is given out for ever, whatever its card did since."""
    first: dict[str, Any] = {}

    def nodes_of(devices: Any, _: Any) -> Any:
        known = (first.setdefault(device.id, device.function.nodes) for device in devices)
        return tuple(node for nodes in known for node in nodes)

    _module("allocation.grant")._nodes_of = nodes_of


def dies_of_garbage() -> None:
    """An mx-smi that prints anything but a table ends the daemon."""
    garbage = _module("hardware.mxsmi").GarbageError
    command = _module("hardware.smi_command")
    original = command.parse_select

    def parse(text: str) -> Any:
        try:
            return original(text)
        except garbage as error:
            raise KeyError("pci.bus_id") from error

    command.parse_select = parse


def registers_once() -> None:
    """A kubelet that comes back is not noticed."""
    plugin = _module("kubelet.plugin")
    original, done = plugin.register, list[str]()

    async def register(*arguments: Any) -> None:
        if not done:
            await original(*arguments)
            done.append("once")

    plugin.register = register


def _module(name: str) -> Any:
    return import_module(f"{PACKAGE}.{name}")


MUTANTS: dict[str, Callable[[], None]] = {
    "never-recovers": never_recovers,
    "tells-at-every-poll": tells_at_every_poll,
    "leaks-descriptors": leaks_descriptors,
    "leaks-memory": leaks_memory,
    "gives-twice": gives_twice,
    "old-nodes": old_nodes,
    "dies-of-garbage": dies_of_garbage,
    "registers-once": registers_once,
}


def apply(name: str) -> None:
    MUTANTS[name]()
