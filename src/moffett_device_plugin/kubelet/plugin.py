"""The life of one resource: serve it, register it, and register it again whenever
the kubelet may have lost it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..api import KUBELET_SOCKET
from ..grpc.server import Server
from ..latest import Latest
from ..tally import ResourceTally
from ..terms import Calls
from .directory import KubeletDirectory
from .listener import Listener
from .names import new_socket_name, socket_prefix
from .peers import Peers
from .registration import RegistrationError, register
from .service import Advertisement, Allocator, DevicePluginService, options_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds.

    `first_retry` doubles up to `last_retry`. `refused_retry` is the first one after
    a kubelet that said no. `dial_back`: how long after a registration the kubelet
    may take to call ListAndWatch. `steady`: a registration that held so long was a
    good one. `handover`: how long to go on serving after another copy was told.
    `withdrawal`: from the empty list of a resource that is offered no more to its end.
    """

    first_retry: float = 0.002
    refused_retry: float = 1.0
    last_retry: float = 10.0
    dial_back: float = 12.0
    steady: float = 1.0
    handover: float = 0.3
    withdrawal: float = 0.2


@dataclass(frozen=True, slots=True)
class _Occasion:
    """What calls for a registration: a change in any of these."""

    kubelet: tuple[int, int, int]  # a new kubelet.sock
    departures: int  # another copy went: the kubelet may have taken it for us
    streams_ended: int  # the kubelet stopped listening to us
    calls: Calls  # what it is told to call


class ResourcePlugin:
    """Serves one resource to the kubelet until it is cancelled.

    `registered` tells whether it listens to us now.
    """

    def __init__(
        self,
        resource: str,
        directory: KubeletDirectory,
        advertised: Latest[Advertisement],
        allocator: Allocator,
        calls: Callable[[], Calls] = Calls,
        tally: ResourceTally | None = None,
        allocated: Callable[[], object] = lambda: None,
        patience: Patience = Patience(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self.tally = tally or ResourceTally()
        self.service = DevicePluginService(
            resource, advertised, allocator, calls, self.tally, allocated
        )
        self._calls = calls
        self._directory = directory
        self._advertised = advertised
        self._patience = patience
        self._clock = clock
        self._name = new_socket_name(resource)
        self._bell = asyncio.Event()
        self._told = ""  # what the log said last of why there is no registration

    @property
    def registered(self) -> bool:
        return self.service.streams > 0

    def look_again(self) -> None:
        """To be called when `calls` may have changed."""
        self._bell.set()

    async def run(self) -> None:
        version = -1
        while not self._advertised.value:  # a node without devices advertises nothing
            _, version = await self._advertised.after(version)
        async with asyncio.TaskGroup() as tasks:
            server = Server(self.service.methods(), tasks)
            listener = Listener(self._directory.path / self._name, server.protocol)
            prefix = socket_prefix(self.resource)
            peers = Peers(self._directory.path, prefix, self._name, tasks)
            self._directory.listing.listen(self._bell.set)
            self.service.changed.listen(self._bell.set)
            peers.departures.listen(self._bell.set)
            try:
                await self._stay_registered(listener, peers)
            finally:
                self._directory.listing.forget(self._bell.set)
                await self._leave(server, listener, peers)

    async def _stay_registered(self, listener: Listener, peers: Peers) -> None:
        done: _Occasion | None = None  # what we last registered for
        tried: _Occasion | None = None
        failures = 0
        last_time = float("-inf")  # of the last accepted registration
        deadline: float | None = None  # for the kubelet to dial back
        streams_before = 0
        while True:
            self._bell.clear()
            listing = self._directory.listing.value
            peers.see(listing.sockets)
            wait: float | None = None
            if not listing.exists:
                self._waiting(f"{self._directory.path} is not there")
            elif not await self._listening(listener):
                wait = self._patience.refused_retry
            elif listing.kubelet is None:
                self._waiting(f"there is no {KUBELET_SOCKET}")
            else:
                occasion = _Occasion(
                    listing.kubelet, peers.departures.value, self.service.ended, self._calls()
                )
                if tried is None or tried.kubelet != occasion.kubelet:
                    failures = 0
                tried = occasion
                now = self._clock()
                if deadline is not None and self.service.started > streams_before:
                    deadline = None
                if deadline is not None and now >= deadline:
                    done, deadline, failures = None, None, failures + 1
                    self._waiting("it accepted the registration and never dialled back")
                if done == occasion:
                    wait = None if deadline is None else deadline - now
                elif now < (due := last_time + self._pause(failures)):
                    wait = due - now
                else:
                    steady = now - last_time > self._patience.steady
                    streams_before = self.service.started
                    ok = await self._register(listener.path.name, failures)
                    last_time = self._clock()
                    if ok:
                        done = occasion
                        deadline = last_time + self._patience.dial_back
                        # One that does not hold is tried again ever more slowly.
                        failures = 0 if steady else failures + 1
                    else:
                        failures += 1
                    continue
            await self._wait(wait)

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            pass

    def _pause(self, failures: int) -> float:
        if failures == 0:
            return 0.0
        return float(
            min(self._patience.first_retry * 2 ** min(failures, 30), self._patience.last_retry)
        )

    async def _listening(self, listener: Listener) -> bool:
        again = listener.ever_listened
        try:
            if await listener.ensure() and again:
                log.info("own-socket-made-again", extra={"socket": listener.path})
        except OSError as error:
            self._waiting(f"cannot listen on {listener.path}: {error.strerror}")
            return False
        return True

    async def _register(self, endpoint: str, failures: int) -> bool:
        started = self._clock()
        socket = self._directory.path / KUBELET_SOCKET
        try:
            await register(socket, endpoint, self.resource, options_of(self._calls()))
        except RegistrationError as error:
            if error.kubelet_is_there:
                self.tally.registration_failures += 1
                self._waiting(f"it refused the registration: {error}")
                await self._wait(self._patience.refused_retry)
            elif failures > 8:  # a socket is there for a moment before its kubelet listens
                self._waiting(f"{socket}: {error}")
            return False
        self.tally.registrations += 1
        self._told = ""
        advertised = self._advertised.value
        log.info(
            "registered",
            extra={
                "resource": self.resource,
                "devices": len(advertised),
                "healthy": sum(device.healthy for device in advertised),
                "took_ms": round((self._clock() - started) * 1000, 1),
            },
        )
        return True

    def _waiting(self, why: str) -> None:
        """Says once why the kubelet does not have us, and again when that changes."""
        if why != self._told:
            self._told = why
            log.warning("waiting-for-kubelet", extra={"resource": self.resource, "why": why})

    async def _leave(self, server: Server, listener: Listener, peers: Peers) -> None:
        """Another copy, if there is one, sees our socket go and registers; only then
        do we stop serving, so that the kubelet always has somebody."""
        listener.unlink()
        listener.close_server()
        if peers.alive and self.service.streams:
            await asyncio.sleep(self._patience.handover)
        server.close()
