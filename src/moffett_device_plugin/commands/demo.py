"""`demo`: a simulated node, a fake kubelet and the real daemon, in one process."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..daemon import Daemon
from ..deviceplugin.socket_names import check_length
from ..devices.health.policy import HealthPolicy
from ..fake_kubelet.kubelet import FakeKubelet, Pod, device_paths
from ..hardware.settings import HardwareSettings
from ..hardware.simulated import SimulatedNode
from ..hardware.simulation import build, parse_spec
from ..resources.pools import DEFAULT_RESOURCE
from ..runtime.errors import ConfigurationError
from ..runtime.log import quiet
from ..settings.options import Values
from ..settings.settings import LogSettings, ServeSettings
from .output import console

SPEC = "2xS30"
RECOVERY_SECONDS = 1.0
STEP_TIMEOUT = 10.0
#: Columns of a terminal below which a sentence stands below its event.
NARROW = 60

#: Takes an event's name, its sentence for people, and its fields for programs.
Report = Callable[[str, str, dict[str, Any]], None]


class DemoError(Exception):
    """A step did not happen; the text says which."""


def run_demo(report: Report) -> None:
    """Raises DemoError when a step does not happen in time."""
    quiet()  # what the daemon would log is what is reported here
    with _folder() as folder:
        try:
            check_length(Path(folder) / "device-plugins", "TMPDIR")
        except ConfigurationError:
            remedy = "set TMPDIR to a shorter path, such as /tmp"
            raise DemoError(f"{folder} is too long a path for sockets: {remedy}") from None
        asyncio.run(_steps(Path(folder), report))


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="spu-demo-")
    except OSError as error:
        remedy = "set TMPDIR to a directory that can be written to"
        raise DemoError(f"no directory for the demo's sockets: {error}; {remedy}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the events, one object a line")


def run(_: Values, arguments: argparse.Namespace) -> int:
    report = _json_report() if arguments.json else _text_report()
    try:
        run_demo(report)
    except DemoError as error:
        report("failed", str(error), {})
        return 1
    return 0


async def _steps(folder: Path, report: Report) -> None:
    try:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            demo = _Demo(folder, tasks, report)
            daemon = tasks.create_task(demo.daemon.run())
            try:
                await demo.run()
            finally:
                demo.kubelet.kill()
                daemon.cancel()
                with suppress(asyncio.CancelledError):
                    await daemon
    except* (DemoError, OSError) as group:  # the latter from standard output
        raise group.exceptions[0] from None


class _Demo:
    def __init__(self, folder: Path, tasks: asyncio.TaskGroup, report: Report) -> None:
        self.node = SimulatedNode(build(parse_spec(SPEC)))
        settings = ServeSettings(
            hardware=HardwareSettings(),
            log=LogSettings(),
            health=HealthPolicy(recovery_seconds=RECOVERY_SECONDS),
            kubelet_dir=folder / "device-plugins",
            state_dir=folder / "state",
            smi_interval=0.5,
        )
        self.daemon = Daemon(settings, self.node)
        self.resource = DEFAULT_RESOURCE
        self.kubelet = FakeKubelet(settings.kubelet_dir, tasks)
        self.report = report

    async def run(self) -> None:
        await self._discovery()
        await self._registration()
        pod = await self._pod()
        await self._fault()
        await self._reboot()
        await self._kubelet_restart(pod)
        self.report("done", "The plugin was never restarted.", {})

    async def _discovery(self) -> None:
        version, state = 0, self.daemon.monitor.state.value
        while not state.settled:
            state, version = await self._within(
                "discovery", self.daemon.monitor.state.after(version)
            )
        cards: dict[str, list[str]] = {}
        for device in state.snapshot.devices:
            cards.setdefault(f"{device.product} {device.serial}", []).append(device.id)
        self.report(
            "discovered",
            f"{len(state.snapshot.devices)} SPUs on {len(cards)} cards: "
            + "; ".join(f"{card}: {', '.join(ids)}" for card, ids in cards.items()),
            {"devices": len(state.snapshot.devices), "cards": cards},
        )

    async def _registration(self) -> None:
        started = time.perf_counter()
        await self.kubelet.start()
        await self._allocatable(6)
        took = _ms(started)
        self.report(
            "registered",
            f"The kubelet started; {self.resource}: 6 allocatable, {took} ms after its socket.",
            {"resource": self.resource, "allocatable": 6, "ms": took},
        )

    async def _pod(self) -> Pod:
        pod = await self.kubelet.admit("inference", self.resource, 2)
        cards = {
            device.card
            for device in self.daemon.monitor.state.value.snapshot.devices
            if device.id in pod.device_ids
        }
        if len(cards) != 1:
            raise DemoError(f"a pod's 2 SPUs are on {len(cards)} cards")
        nodes = list(device_paths(pod.response))
        self.report(
            "pod-admitted",
            f"Pod inference asked for 2 and got {' and '.join(pod.device_ids)}, both on card "
            f"{cards.pop()}; in its /dev: {', '.join(nodes)}.",
            {"pod": pod.name, "devices": pod.device_ids, "nodes": nodes,
             "envs": dict(pod.response.envs)},
        )  # fmt: skip
        return pod

    async def _fault(self) -> None:
        chip = self.node.layout.chips[-1].bus_id
        started = time.perf_counter()
        self.node.set(self.node.faults.with_fault(chip, "ecc"))
        await self._allocatable(5)
        reasons = self.daemon.monitor.state.value.health_statuses[chip].reasons
        self.report(
            "device-unhealthy",
            f"{chip} is unhealthy: {reasons[0].code}: {reasons[0].message}. 5 allocatable.",
            {"device": chip, "reasons": [r.code for r in reasons], "allocatable": 5,
             "ms": _ms(started)},
        )  # fmt: skip

    async def _reboot(self) -> None:
        card = self.node.layout.card_of(self.node.layout.chips[-1].bus_id)
        faults = self.node.faults
        for chip in card:
            faults = faults.with_fault(chip.bus_id, "gone")
        started = time.perf_counter()
        self.node.set(faults)
        await self._allocatable(3)
        self.report(
            "card-rebooting",
            f"Card {card[0].serial} reboots: its 3 devices leave the bus. 3 allocatable"
            f" after {_ms(started)} ms.",
            {"card": card[0].serial, "allocatable": 3, "ms": _ms(started)},
        )
        for chip in card:
            faults = faults.rebooted(chip.bus_id)
        started = time.perf_counter()
        self.node.set(faults)
        await self._allocatable(6)
        self.report(
            "card-recovered",
            f"They are back, with new counters, and were healthy for {RECOVERY_SECONDS:g} s."
            " 6 allocatable, and nothing was restarted.",
            {"card": card[0].serial, "allocatable": 6, "ms": _ms(started)},
        )

    async def _kubelet_restart(self, pod: Pod) -> None:
        self.kubelet.kill()
        await self.kubelet.start()
        started = time.perf_counter()
        await self._allocatable(6)
        took = _ms(started)
        if self.kubelet.pods.get(pod.name) != pod:
            raise DemoError("the pod lost its devices")
        self.report(
            "kubelet-restarted",
            f"The kubelet was killed and restarted: 6 allocatable again {took} ms after its new"
            " socket; pod inference kept its devices.",
            {"allocatable": 6, "ms": took, "pod_kept": list(pod.device_ids)},
        )

    async def _allocatable(self, count: int) -> None:
        await self._within(
            f"{count} allocatable", self.kubelet.until_allocatable(self.resource, count)
        )

    async def _within(self, what: str, coroutine: Any) -> Any:
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                return await coroutine
        except TimeoutError:
            raise DemoError(f"no {what} in {STEP_TIMEOUT:g} s") from None


def _ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)


def _json_report() -> Report:
    started = time.perf_counter()

    def report(event: str, text: str, fields: dict[str, Any]) -> None:
        line = {"at_ms": _ms(started), "event": event, "text": text, **fields}
        print(json.dumps(line), flush=True)

    return report


def _text_report() -> Report:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    out = console()
    started = time.perf_counter()
    colours = {"device-unhealthy": "red", "card-rebooting": "yellow", "failed": "red"}

    def report(event: str, text: str, fields: dict[str, Any]) -> None:
        if out.width < NARROW:
            out.print(Text(event, style=colours.get(event, "green")))
            out.print(Padding(Text(text, overflow="fold"), (0, 0, 0, 2)))
            return
        # On a terminal a long sentence goes on below its beginning.
        line = Table.grid(padding=(0, 2))
        for _ in range(3):
            line.add_column()
        line.add_row(
            Text(f"{time.perf_counter() - started:6.2f} s", style="dim"),
            Text(f"{event:<17}", style=colours.get(event, "green"), no_wrap=True),
            Text(text),
        )
        out.print(line)

    out.print(f"A simulated node with {SPEC}, a fake kubelet, and the real daemon.\n")
    return report
