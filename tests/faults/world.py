"""Everything that a fault can act on, and the true state of it."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError, Pod

from . import invariants, namespaces, truth
from .invariants import Agreement, Growth, InvariantError
from .kubelet import CrashingKubelet
from .machine import Machine
from .plugin import ROOT, Line, Plugin
from .truth import Shape

T = TypeVar("T")

RECOVERY, SMI_INTERVAL, SMI_TIMEOUT = 1.0, 0.5, 1.0
#: Seconds for a start: on a busy machine the interpreter alone may take several.
START = 20.0
#: Seconds after a pod's end in which the daemon may not have noticed it.
POD_MEMORY = 40.0

SHAPES: dict[str, tuple[Shape, str]] = {
    "devices": (Shape("moffett.ai/spu"), "resources: [{granularity: device}]\n"),
    "cards": (Shape("moffett.ai/spu-card", cards=True), "resources: [{granularity: card}]\n"),
    "shared": (
        Shape("moffett.ai/spu.shared", shared=True),
        f"resources: [{{sharing: {{replicas: {truth.REPLICAS}}}}}]\n",
    ),
    "ecc-off": (
        Shape("moffett.ai/spu", ecc_counts=False),
        "resources: [{granularity: device}]\nhealth: {rules: {ecc-uncorrected: off}}\n",
    ),
}


class NotNowError(Exception):
    """A fault is not possible in this state; it is skipped."""


class World:
    """Use `chance` for every choice, so that a seed determines the plan. A fault that lasts
    puts the function that repairs it into `open`, by a name; that may be called twice."""

    def __init__(self, scratch: Path, tasks: asyncio.TaskGroup, mutant: str = "") -> None:
        self.scratch = scratch
        self.tasks = tasks
        self.chance = random.Random(0)
        self.machine = Machine(scratch / "host")
        self.kubelet_dir = scratch / "dp"
        self.cdi_dir = scratch / "cdi"
        self.nfd_file = scratch / "nfd" / "moffett-spu"
        self.config = scratch / "etc" / "config.yaml"
        small = [(self.kubelet_dir, 64), (self.cdi_dir, 16), (self.nfd_file.parent, 16)]
        mounted = [namespaces.mount_small(path, 128, inodes) for path, inodes in small]
        self.small = all(mounted)
        self.limits = namespaces.InotifyLimits()
        self.kubelet = CrashingKubelet(self.kubelet_dir, scratch / "pods.sock", tasks)
        self.open: dict[str, Callable[[], object]] = {}
        self.agreement = Agreement()
        self.growth = Growth()
        self.plugin: Plugin | None = None
        self.plugins: list[Plugin] = []
        self.log_lines: list[Line] = []  # the logs of all daemons, newest last
        self.violation: InvariantError | None = None
        self.shape, text = SHAPES["devices"]
        self.without_inotify = False  # the daemon started, or continued, without it
        self.freed: dict[tuple[str, str], float] = {}  # (resource, device): its pod's end
        self.usual_descriptors = 0
        self.cdi_full_since: object = None
        self.settled = False  # the list was right when this fault began
        self._blocked: list[str] = []
        self._lives = 0
        self._pods = 0
        self._mutant = mutant
        self._clock = scratch / "clock"
        self._clock.write_bytes(struct.pack("<q", 0))
        self.config.parent.mkdir()
        self.config.write_text(f"version: v1\n{text}")

    # -- choosing ------------------------------------------------------------------------

    def pick(self, several: Iterable[T]) -> T:
        """One of them, or NotNowError."""
        them = list(several)
        if not them:
            raise NotNowError
        return self.chance.choice(them)

    def need(self, condition: object) -> None:
        if not condition:
            raise NotNowError

    # -- the daemon ------------------------------------------------------------------------

    async def start_plugin(self) -> Plugin:
        """Another process; `plugin` is the newest from now on."""
        self._lives += 1
        plugin = Plugin(self._lives, self._on_line)
        arguments = {
            "config": self.config,
            "host-root": self.machine.host.root,
            "kubelet-dir": self.kubelet_dir,
            "state-dir": self.scratch / "state",
            "pod-resources-socket": self.scratch / "pods.sock",
            "mx-smi-interval": SMI_INTERVAL,
            "mx-smi-timeout": SMI_TIMEOUT,
            "recovery-seconds": RECOVERY,
            "flapping-seconds": "none",
            "cdi-dir": self.cdi_dir,
            "labels": "nfd",
            "nfd-file": self.nfd_file,
            "log-format": "json",
        }
        words = [f"--{name}={value}" for name, value in arguments.items()]
        words += ["--device-list-strategy=device-specs", "--device-list-strategy=cdi-cri"]
        environment = {"FAULTS_CLOCK": str(self._clock)}
        if self._mutant:
            environment |= {"FAULTS_MUTANT": self._mutant, "FAULTS_ROOT": str(ROOT)}
        self.plugins.append(plugin)
        self.plugin = plugin
        self.growth = Growth(usual=self.usual_descriptors)
        if self.kubelet.running:
            self.freed.clear()  # it reads the pod resources before it advertises anything
        self.without_inotify = "no-inotify" in self.open
        for device in self.machine.devices:
            device.seen = device.present
        await plugin.start(words, environment)
        self.changed(START)
        return plugin

    async def end_plugin(self, number: signal.Signals, plugin: Plugin | None = None) -> None:
        plugin = plugin or self.plugin
        assert plugin is not None
        try:
            await plugin.end(number)
        except TimeoutError:
            plugin.resume()
            raise InvariantError("ends-in-order", f"it runs 10 s after {number.name}") from None
        self.plugins.remove(plugin)
        if self.plugin is plugin:
            self.plugin = None
            if "no-descriptors" in self.open:  # the limit ended with the process
                del self.open["no-descriptors"]
                self.unblock("no descriptors")

    @property
    def advertised_now(self) -> object:
        """What the daemon advertises, and which process of it."""
        return self._lives, self.shape.resource

    def _on_line(self, plugin: Plugin, line: Line) -> None:
        self.log_lines.append({"life": plugin.number, **line})
        try:
            invariants.check_line(line)
        except InvariantError as error:
            self.violation = self.violation or error

    # -- what is true ----------------------------------------------------------------------

    @contextmanager
    def blocked(self, why: str) -> Iterator[None]:
        """The list is not checked meanwhile."""
        self._blocked.append(why)
        try:
            yield
        finally:
            self._blocked.remove(why)
            self.changed()

    def block(self, why: str) -> None:
        if why not in self._blocked:
            self._blocked.append(why)

    def unblock(self, why: str) -> None:
        if why in self._blocked:
            self._blocked.remove(why)
        self.changed()

    def changed(self, seconds: float = 0.0) -> None:
        self.agreement.changed(time.monotonic(), seconds)

    def differences(self) -> list[str] | None:
        """None while the list is not checked."""
        if self._blocked or self.plugin is None or not self.kubelet.running:
            return None
        if "disk-full: cdi" in self.open and self.cdi_full_since != self.advertised_now:
            return None  # without its CDI spec, no new name is advertised
        want = truth.expected(
            self.machine.devices,
            self.shape,
            smi_ok=self.machine.smi_ok,
            held=self._held_otherwise(),
        )
        listed = {
            name: {i: device.health for i, device in self.kubelet.devices(name).items()}
            for name in self.kubelet.resources()
        }
        return truth.differences(want, listed)

    def check(self) -> None:
        """Everything that can be checked at any time. Raises InvariantError."""
        if self.violation is not None:
            raise self.violation
        for plugin in self.plugins:
            invariants.check_alive(plugin.status, ended_by_us=plugin.ending)
        self.agreement.see(self.differences(), time.monotonic())
        invariants.check_owners(
            (pod.name, self.devices_of(pod), not _shared(pod)) for pod in self.kubelet.pods.values()
        )

    def check_use(self) -> None:
        """Memory and descriptors, when there is no fault."""
        plugin = self.plugin
        if plugin is not None and plugin.status is None:
            self.growth.see(plugin.rss_mib(), plugin.descriptors())

    def _held_otherwise(self) -> set[str]:
        now = time.monotonic()
        held = {
            bus_id
            for (name, bus_id), at in self.freed.items()
            if name != self.shape.resource and now - at < POD_MEMORY
        }
        for pod in self.kubelet.pods.values():
            if pod.resource != self.shape.resource:
                held.update(self.devices_of(pod))
        return held

    # -- pods ------------------------------------------------------------------------------

    async def admit(self, count: int) -> Pod | None:
        """A pod that requests so many advertised devices; None when it is refused."""
        self._pods += 1
        shape = self.shape
        try:
            pod = await self.kubelet.admit(f"pod-{self._pods}", shape.resource, count)
        except AdmissionError:
            return None
        self.kubelet.publish_pods()
        return pod

    def end_pod(self, pod: Pod) -> None:
        for bus_id in self.devices_of(pod):
            self.freed[pod.resource, bus_id] = time.monotonic()
        self.kubelet.delete(pod.name)
        self.kubelet.publish_pods()

    def devices_of(self, pod: Pod) -> list[str]:
        """Bus IDs, as in the container's environment."""
        return [i for i in pod.response.envs["MOFFETT_SPU_BUS_IDS"].split(",") if i]

    def nodes_now(self, pod: Pod) -> set[str]:
        ids = set(self.devices_of(pod))
        return {f"/dev/{device.node}" for device in self.machine.devices if device.bus_id in ids}

    # -- the rest --------------------------------------------------------------------------

    async def move_clock(self, seconds: int) -> None:
        """Sets the offset of the wall clock of all daemons."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("<q", seconds))

    def limit_descriptors(self, count: int | None) -> None:
        """The daemon may open no more than it has, plus `count`; None: as many as usual."""
        assert self.plugin is not None
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ProcessLookupError):
            soft = usual[0] if count is None else self._highest(self.plugin.pid) + 1 + count
            resource.prlimit(self.plugin.pid, resource.RLIMIT_NOFILE, (soft, usual[1]))

    @staticmethod
    def _highest(pid: int) -> int:
        return max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))

    async def repair(self, name: str) -> None:
        done = self.open.pop(name)()
        if isinstance(done, Awaitable):
            await done
        self.changed()

    async def close(self) -> None:
        with suppress(OSError):
            self.limits.restore()
        for plugin in list(self.plugins):
            plugin.resume()
            await plugin.end(signal.SIGKILL)
        self.kubelet.kill()
        for folder in (self.kubelet_dir, self.cdi_dir, self.nfd_file.parent):
            if self.small:
                namespaces.unmount(folder)


def _shared(pod: Pod) -> bool:
    return any("::" in device_id for device_id in pod.device_ids)
