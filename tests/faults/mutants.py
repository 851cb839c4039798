"""Deliberate defects of the daemon, to show that the campaign finds each of them.
They are applied in the daemon's process by preload/sitecustomize.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

PACKAGE = "moffett_device_plugin"


def never_recovers() -> None:
    """A device that was unhealthy once stays so: the most common complaint about plugins."""
    first: dict[str, Any] = {}

    def mutate(original: Any) -> Any:
        def reasons_of(device: Any, *rest: Any) -> Any:
            reasons = original(device, *rest)
            if any(reason.severity == "unhealthy" for reason in reasons):
                first.setdefault(device.id, reasons)
            return first.get(device.id, reasons)

        return reasons_of

    _replace("devices.health.evaluate:reasons_of", mutate)


def logs_at_every_poll() -> None:
    """The log has the unhealthy devices each time that mx-smi has run."""

    def mutate(original: Any) -> Any:
        async def ask_smi(self: Any) -> None:
            await original(self)
            for device_id, status in self.state.value.health_statuses.items():
                if not status.healthy:
                    log = logging.getLogger(PACKAGE)
                    log.error("device-unhealthy", extra={"device": device_id})

        return ask_smi

    _replace("devices.monitor:Monitor.ask_smi", mutate)


def leaks_descriptors() -> None:
    """Files of devices that left stay open."""

    def close(self: Any) -> None:
        self._open = {}

    _replace("hardware.registers:RegisterReader.close", lambda _: close)


def leaks_memory() -> None:
    """Each run of mx-smi leaks 200 kB."""
    kept: list[bytes] = []

    def mutate(original: Any) -> Any:
        async def query(self: Any) -> Any:
            kept.append(b"\1" * 200_000)
            return await original(self)

        return query

    _replace("hardware.smi_command:SmiCommand.query", mutate)


def allocates_twice() -> None:
    """A device that a pod has under another name is advertised as free."""
    _replace("deviceplugin.manager:mark_conflicts", lambda _: lambda pool, *_: pool)


def stale_device_nodes() -> None:
    """A device's first device nodes are allocated forever, also after a reboot of its card."""
    first: dict[str, Any] = {}

    def nodes_of(devices: Any, _: Any) -> Any:
        known = (first.setdefault(device.id, device.function.nodes) for device in devices)
        return tuple(node for nodes in known for node in nodes)

    _replace("allocation.allocate_result:_nodes_of", lambda _: nodes_of)


def ends_on_garbage() -> None:
    """An mx-smi that prints anything but a table ends the daemon."""
    garbage = import_module(f"{PACKAGE}.hardware.mxsmi").GarbageError

    def mutate(original: Any) -> Any:
        def parse(text: str) -> Any:
            try:
                return original(text)
            except garbage as error:
                raise KeyError("pci.bus_id") from error

        return parse

    _replace("hardware.smi_command:parse_select", mutate)


def registers_once() -> None:
    """A restarted kubelet is not noticed."""
    done: list[str] = []

    def mutate(original: Any) -> Any:
        async def register(*arguments: Any) -> None:
            if not done:
                await original(*arguments)
                done.append("once")

        return register

    _replace("deviceplugin.plugin:register", mutate)


def _replace(place: str, mutate: Callable[[Any], Any]) -> None:
    """`place` is MODULE:NAME below the package. Raises AttributeError if it has moved."""
    module, _, path = place.partition(":")
    owner: Any = import_module(f"{PACKAGE}.{module}")
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, name, mutate(getattr(owner, name)))


MUTANTS: dict[str, Callable[[], None]] = {
    "never-recovers": never_recovers,
    "logs-at-every-poll": logs_at_every_poll,
    "leaks-descriptors": leaks_descriptors,
    "leaks-memory": leaks_memory,
    "allocates-twice": allocates_twice,
    "stale-device-nodes": stale_device_nodes,
    "ends-on-garbage": ends_on_garbage,
    "registers-once": registers_once,
}


def apply(name: str) -> None:
    MUTANTS[name]()
