"""`demo`: a simulated node, a kubelet stand-in and the real daemon, in one process."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..daemon import Daemon
from ..devices.health.policy import HealthPolicy
from ..fake_kubelet.kubelet import FakeKubelet, Pod, device_paths
from ..hardware.simulated import SimulatedNode
from ..hardware.simulation import build, parse_spec
from ..resources.pools import DEFAULT_RESOURCE
from ..runtime.log import quiet
from ..settings.settings import HardwareSettings, LogSettings, ServeSettings

SPEC = "2xS30"
RECOVERY_SECONDS = 1.0
STEP_TIMEOUT = 10.0

#: Takes an event's name, its sentence for people, and its fields for programs.
Tell = Callable[[str, str, dict[str, Any]], None]


class DemoError(Exception):
    """The story did not go as it should; the text says where."""


def run_demo(tell: Tell) -> None:
    """Raises DemoError when a step does not come true."""
    quiet()  # what the daemon would log is what is told here
    with _folder() as folder:
        asyncio.run(_story(Path(folder), tell))


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="spu-demo-")
    except OSError as error:
        remedy = "set TMPDIR to a directory that can be written to"
        raise DemoError(f"no place for the sockets of the demo: {error}; {remedy}") from None


def run(*, as_json: bool) -> int:
    tell = _json_teller() if as_json else _terminal_teller()
    try:
        run_demo(tell)
    except DemoError as error:
        tell("failed", str(error), {})
        return 1
    return 0


async def _story(folder: Path, tell: Tell) -> None:
    try:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            demo = _Demo(folder, tasks, tell)
            daemon = tasks.create_task(demo.daemon.run())
            try:
                await demo.play()
            finally:
                demo.kubelet.kill()
                daemon.cancel()
                with suppress(asyncio.CancelledError):
                    await daemon
    except* DemoError as group:
        raise group.exceptions[0] from None


class _Demo:
    def __init__(self, folder: Path, tasks: asyncio.TaskGroup, tell: Tell) -> None:
        self.node = SimulatedNode(build(parse_spec(SPEC)))
        settings = ServeSettings(
            hardware=HardwareSettings(),
            log=LogSettings(),
            health=HealthPolicy(recovery_seconds=RECOVERY_SECONDS),
            kubelet_dir=folder / "device-plugins",
            smi_interval=0.5,
        )
        self.daemon = Daemon(settings, self.node)
        self.resource = DEFAULT_RESOURCE
        self.kubelet = FakeKubelet(settings.kubelet_dir, tasks)
        self.tell = tell

    async def play(self) -> None:
        await self._discovery()
        await self._registration()
        pod = await self._pod()
        await self._fault()
        await self._reboot()
        await self._kubelet_restart(pod)
        self.tell("done", "The plugin was never restarted.", {})

    async def _discovery(self) -> None:
        version, state = 0, self.daemon.monitor.state.value
        while not state.settled:
            state, version = await self._within(
                "discovery", self.daemon.monitor.state.after(version)
            )
        cards: dict[str, list[str]] = {}
        for device in state.snapshot.devices:
            cards.setdefault(f"{device.product} {device.serial}", []).append(device.id)
        self.tell(
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
        self.tell(
            "registered",
            f"The kubelet came up; {self.resource}: 6 allocatable, {took} ms after its socket.",
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
        self.tell(
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
        self.tell(
            "device-unhealthy",
            f"{chip} fails: {reasons[0].code}: {reasons[0].message}. 5 allocatable.",
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
        self.tell(
            "card-rebooting",
            f"Card {card[0].serial} is rebooted: its 3 chips leave the bus. 3 allocatable"
            f" after {_ms(started)} ms.",
            {"card": card[0].serial, "allocatable": 3, "ms": _ms(started)},
        )
        for chip in card:
            faults = faults.rebooted(chip.bus_id)
        started = time.perf_counter()
        self.node.set(faults)
        await self._allocatable(6)
        self.tell(
            "card-recovered",
            f"They are back, new counters and all, and stayed well for {RECOVERY_SECONDS:g} s."
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
        self.tell(
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


def _json_teller() -> Tell:
    started = time.perf_counter()

    def tell(event: str, text: str, fields: dict[str, Any]) -> None:
        print(json.dumps({"at_ms": _ms(started), "event": event, "text": text, **fields}))

    return tell


def _terminal_teller() -> Tell:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    started = time.perf_counter()
    colours = {"device-unhealthy": "red", "card-rebooting": "yellow", "failed": "red"}

    def tell(event: str, text: str, fields: dict[str, Any]) -> None:
        seconds = time.perf_counter() - started
        colour = colours.get(event, "green")
        console.print(f"[dim]{seconds:6.2f} s[/]  [{colour}]{event:<17}[/]  {escape(text)}")

    console.print(f"A simulated node with {SPEC}, a kubelet stand-in, and the real daemon.\n")
    return tell
