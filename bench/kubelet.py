"""The kubelet as a plugin sees it: registration, the device list, Allocate."""

from __future__ import annotations

import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import grpc

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb

Message = dict[str, Any]


class TimedOutError(Exception):
    """The plugin did not do in time what was waited for; the message says what."""


@dataclass(frozen=True, slots=True)
class DeviceList:
    """One message of ListAndWatch, and when it came (monotonic seconds)."""

    at: float
    health: Mapping[str, str]

    def fit(self, device: str) -> bool:
        return self.health.get(device) == api.HEALTHY


@dataclass(frozen=True, slots=True)
class Registered:
    at: float
    endpoint: str


class _Registrar:
    """One life of the kubelet's socket. See registrar.py."""

    def __init__(self, directory: Path, report: Callable[[Message], None]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.registrar", str(directory.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],  # where `bench` is found
        )
        self._report = report
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["event"] == "ready"
        self._thread = threading.Thread(target=self._read, args=(self._process.stdout,))

    def bind(self) -> None:
        assert self._process.stdin is not None
        self._thread.start()
        self._process.stdin.write("bind\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._thread.is_alive():
            self._thread.join()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self._report(json.loads(line))


class Kubelet:
    """Waits for one plugin, and calls it as a kubelet would."""

    def __init__(self, directory: Path, timeout: float) -> None:
        self._directory = directory
        self._timeout = timeout
        self._told: queue.Queue[Message] = queue.Queue()
        self._lists: queue.Queue[DeviceList] = queue.Queue()
        self._channel: grpc.Channel | None = None
        self._registrar = _Registrar(directory, self._told.put)
        self.inode = 0
        self.bound = 0.0  # monotonic seconds: just before kubelet.sock was made

    def __enter__(self) -> Self:
        self._bind()
        return self

    def __exit__(self, *_: object) -> None:
        self._registrar.kill()
        self._hang_up()

    def restart(self) -> None:
        """Dies at once, its socket lying there; a new one empties the directory."""
        following = _Registrar(self._directory, self._told.put)
        self._registrar.kill()
        self._hang_up()
        while not self._told.empty():
            self._told.get()
        self._registrar = following
        self._bind()

    def connect(self) -> Registered:
        """Waits for the plugin's Register, then follows its device list."""
        told = self._wait("registered")
        registered = Registered(told["at"], told["endpoint"])
        self._hang_up()
        self._lists = queue.Queue()
        self._channel = grpc.insecure_channel(
            f"unix:{self._directory / registered.endpoint}",
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        watch = self._channel.unary_stream(
            api.LIST_AND_WATCH,
            request_serializer=pb.Empty.SerializeToString,
            response_deserializer=pb.ListAndWatchResponse.FromString,
        )
        stream = watch(pb.Empty(), wait_for_ready=True)
        threading.Thread(target=self._follow, args=(stream, self._lists), daemon=True).start()
        return registered

    def next_list(self, what: str, want: Callable[[DeviceList], bool]) -> DeviceList:
        """The first device list from now on that is as wanted. Raises TimedOutError."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                devices = self._lists.get(timeout=left)
            except queue.Empty:
                break
            if want(devices):
                return devices
        raise TimedOutError(f"{what}: nothing in {self._timeout:.0f} s")

    def allocate(self, devices: Sequence[str], times: int, warm_up: int) -> list[float]:
        """Seconds that each of `times` Allocate calls for two random devices took."""
        assert self._channel is not None
        call = self._channel.unary_unary(
            api.ALLOCATE,
            request_serializer=pb.AllocateRequest.SerializeToString,
            response_deserializer=pb.AllocateResponse.FromString,
        )
        draw = random.Random(0)
        took: list[float] = []
        for _ in range(warm_up + times):
            ids = draw.sample(list(devices), min(2, len(devices)))
            request = pb.AllocateRequest(
                container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)]
            )
            start = time.perf_counter()
            response = call(request)
            took.append(time.perf_counter() - start)
            assert len(response.container_responses) == 1
        return took[warm_up:]

    def _bind(self) -> None:
        self._registrar.bind()
        bound = self._wait("bound")
        self.bound, self.inode = bound["at"], bound["inode"]

    def _wait(self, event: str) -> Message:
        # A plugin can register before `bound` is told, so what was not waited for
        # goes back to the queue.
        kept: list[Message] = []
        deadline = time.monotonic() + self._timeout
        try:
            while (left := deadline - time.monotonic()) > 0:
                message = self._told.get(timeout=left)
                if message["event"] == event:
                    return message
                kept.append(message)
        except queue.Empty:
            pass
        finally:
            for message in kept:
                self._told.put(message)
        raise TimedOutError(f"{event}: nothing in {self._timeout:.0f} s")

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @staticmethod
    def _follow(stream: Any, lists: queue.Queue[DeviceList]) -> None:
        try:
            for message in stream:
                at = time.monotonic()
                lists.put(DeviceList(at, {d.ID: d.health for d in message.devices}))
        except (grpc.RpcError, ValueError):
            pass  # the plugin went, or we hung up
