"""What a check works with: a plugin's process, and a fake kubelet around it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.fake_kubelet.behaviour import CURRENT, Behaviour
from moffett_device_plugin.fake_kubelet.kubelet import FakeKubelet
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import Code, StatusError
from moffett_device_plugin.runtime.watchable import Watchable

from . import default_path
from .outcome import ExitedError, FailedError, NotReadyError, Outcome, ending, passed, reported
from .process import PluginProcess

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose. In the commands, {dir}, {tmp} and {pid} are filled in."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    at_default_path: bool = False
    resource: str = ""  # empty: the first that registers
    timeout: float = 15.0
    settle: float = 0.3  # how long something must not happen
    grace: float = 30.0  # after SIGTERM; Kubernetes' default
    inject_command: tuple[str, ...] = ()
    heal_command: tuple[str, ...] = ()


class Rig:
    """`changed` counts up with everything that a check could wait for."""

    def __init__(self, options: Options, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self.options = options
        self.folder = folder
        self.directory = folder / "device-plugins"
        self.log = folder / "plugin.log"
        self.kubelet = FakeKubelet(self.directory, tasks, behaviour=CURRENT)
        self.process: PluginProcess | None = None
        self.started_at = 0.0
        self.injected = False  # a fault, by --inject, and not healed
        self.healthy_before = 0  # healthy devices before that
        self.changed: Watchable[int] = Watchable(0)
        self.random = random.Random(0)  # noqa: S311  (orders, no secrets)
        self._resource = options.resource
        self._tasks = tasks
        self.kubelet.changed.listen(self._bump)

    def _bump(self) -> None:
        self.changed.set(self.changed.value + 1)

    # -- the plugin -----------------------------------------------------------------------

    @property
    def resource(self) -> str:
        """The one that is checked; empty while none has registered."""
        if not self._resource and self.kubelet.registrations:
            self._resource = self.kubelet.registrations[0].resource_name
        return self._resource

    @property
    def registered(self) -> bool:
        return self.kubelet.listening(self.resource)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.code is None

    def devices(self) -> dict[str, pb.Device]:
        return self.kubelet.devices(self.resource)

    def healthy(self) -> list[str]:
        return self.kubelet.healthy_ids(self.resource)

    def endpoint(self) -> Path:
        path = self.kubelet.endpoint(self.resource)
        if path is None:
            raise NotReadyError("it is not registered")
        return path

    def filled(self, words: Sequence[str]) -> list[str]:
        pid = str(self.process.pid) if self.process else ""
        where = {"{dir}": str(self.directory), "{tmp}": str(self.folder), "{pid}": pid}
        filled = []
        for word in words:
            text = word
            for name, value in where.items():
                text = text.replace(name, value)
            filled.append(text)
        return filled

    async def start(self) -> None:
        command = self.filled(self.options.command)
        if self.options.at_default_path:
            command = [*default_path.WRAPPER, str(self.directory), *command]
        environment = {k: self.filled([v])[0] for k, v in self.options.environment.items()}
        self.started_at = time.perf_counter()
        self.process = await PluginProcess.start(
            command, environment, self.log, self._tasks, self._bump
        )

    async def stop(self) -> None:
        if self.process is not None:
            await self.process.kill()
        self.process = None

    async def begin(self, behaviour: Behaviour = CURRENT, *, kubelet: bool = True) -> None:
        """A new plugin and a new kubelet in an empty directory."""
        await self.stop()
        self.kubelet.kill()
        self.directory.mkdir(exist_ok=True)
        for entry in self.directory.iterdir():
            entry.unlink()
        self.kubelet.registrations.clear()
        self.kubelet.registered_at.clear()
        self.kubelet.dial_failures.clear()
        self.kubelet.lists.set(0)
        self.kubelet.behaviour = behaviour
        if kubelet:
            await self.kubelet.start()
        await self.start()

    async def ready(self) -> None:
        """Returns with a registered plugin and a well-behaved kubelet.

        Both are started anew when an earlier check left them in another state. Raises
        NotReadyError when the plugin does not register.
        """
        if self.running and self.kubelet.running and self.kubelet.behaviour == CURRENT:
            try:
                async with asyncio.timeout(self.options.timeout):
                    await self.until(lambda: self.registered, "registration")
                    return
            except (FailedError, ExitedError, TimeoutError):
                pass
        await self.begin()
        try:
            await self.until(lambda: self.registered, "registration and device list")
        except (FailedError, ExitedError) as error:
            raise NotReadyError(str(error)) from error

    # -- waiting --------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Returns when it holds. Raises FailedError when that takes too long, ExitedError
        when the plugin ends first."""
        try:
            async with asyncio.timeout(self.options.timeout):
                while not condition():
                    if self.process is not None and self.process.code is not None:
                        raise ExitedError(self.process.code)
                    await self.changed.after(self.changed.version)
        except TimeoutError:
            text = f"no {what} in {self.options.timeout:g} s"
            raise FailedError(text + self._why_not_dialled()) from None

    async def until_settled(self, seconds: float) -> None:
        """Lets time pass. Raises ExitedError when the plugin ends in it."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            if self.process is not None and self.process.code is not None:
                raise ExitedError(self.process.code)
            try:
                async with asyncio.timeout(left):
                    await self.changed.after(self.changed.version)
            except TimeoutError:
                return

    async def until_quiet(self) -> None:
        """Returns when nothing has happened for 0.1 s: the effects of an earlier check are over."""
        version = -1
        while version != self.changed.version:
            version = self.changed.version
            await self.until_settled(0.1)

    async def until_gone(self) -> None:
        """Returns when the kubelet knows that the plugin's process has ended. Raises
        FailedError when something holds the connection open still."""
        try:
            async with asyncio.timeout(self.options.timeout):
                while self.registered:
                    await self.changed.after(self.changed.version)
        except TimeoutError:
            text = f"its connection is open {self.options.timeout:g} s after its end"
            raise FailedError(text) from None

    async def comes_back(self, since: float, after: str) -> Outcome:
        """Waits until it has registered and listed again, measured from `since`.

        A plugin that ends instead counts on its DaemonSet, and is started once more.
        """
        what = f"registration after {after}"
        try:
            await self.until(lambda: self.registered, what)
        except ExitedError as error:
            await self.start()
            await self.until(lambda: self.registered, f"{what} and its own restart")
            took = ms(self.started_at, self.kubelet.registered_at[-1])
            return reported(
                f"ends ({ending(error.code)}) and counts on being restarted; registered"
                f" {took:g} ms after that restart",
                took,
            )
        took = ms(since, self.kubelet.registered_at[-1])
        return passed(f"registered {took:g} ms after {after}", took)

    def _why_not_dialled(self) -> str:
        failures = self.kubelet.dial_failures
        return f"; the kubelet could not dial it: {failures[-1]}" if failures else ""

    # -- calls ----------------------------------------------------------------------------

    @asynccontextmanager
    async def channel(self, authority: str = "localhost") -> AsyncIterator[Channel]:
        """A connection of its own to the plugin. Raises FailedError."""
        try:
            channel = await Channel.connect(self.endpoint(), authority)
        except OSError as error:
            raise FailedError(f"nobody listens on its socket: {error.strerror}") from error
        try:
            yield channel
        finally:
            channel.close()

    async def call(
        self, method: str, request: Message, answer: type[M], channel: Channel | None = None
    ) -> M:
        """Raises StatusError for a refusal, FailedError for none and for no answer."""
        return answer.FromString(await self.raw_call(method, request.SerializeToString(), channel))

    async def raw_call(self, method: str, body: bytes, channel: Channel | None = None) -> bytes:
        if channel is None:
            async with self.channel() as own:
                return await self.raw_call(method, body, own)
        try:
            return await channel.unary(method, body, self.options.timeout)
        except StatusError as error:
            name = method.rpartition("/")[2]
            if error.code is Code.DEADLINE_EXCEEDED:
                raise FailedError(f"{name}: {error.text}") from error
            if error.code is Code.UNAVAILABLE and channel.lost.is_set():
                raise FailedError(f"{name}: the plugin closed the connection") from error
            raise

    async def allocate(
        self, *containers: Sequence[str], channel: Channel | None = None
    ) -> pb.AllocateResponse:
        request = pb.AllocateRequest()
        for ids in containers:
            request.container_requests.add(devices_ids=ids)
        return await self.call(api.ALLOCATE, request, pb.AllocateResponse, channel)

    async def still_serves(self, what: str) -> None:
        """Raises FailedError when `what` ended the plugin, or it no longer answers."""
        if not self.running:
            raise FailedError(f"{what} ended the plugin")
        try:
            await self._answers()
        except (StatusError, FailedError, ExitedError) as error:
            raise FailedError(f"after {what}: {error}") from error

    async def _answers(self) -> None:
        """Some register again whenever a stream ends, sooner or later, and close what they
        served before: a call that met that is made again on what the kubelet has then."""
        while True:
            await self.until(lambda: self.registered, "ListAndWatch stream")
            known = len(self.kubelet.registrations), self.endpoint()
            try:
                await self.call(api.GET_OPTIONS, pb.Empty(), pb.DevicePluginOptions)
            except (StatusError, FailedError):
                await self.until_quiet()
                if self.registered and known == (len(self.kubelet.registrations), self.endpoint()):
                    raise
            else:
                return

    async def run(self, command: Sequence[str]) -> None:
        """One of the user's commands. Raises FailedError."""
        words = self.filled(command)
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await process.communicate()
        if process.returncode:
            text = error.decode(errors="replace").strip()[-200:]
            raise FailedError(f"{words[0]} ended with {ending(process.returncode)}: {text}")


def ms(since: float, until: float | None = None) -> float:
    """Milliseconds between two readings of time.perf_counter."""
    return round(((time.perf_counter() if until is None else until) - since) * 1000, 1)
