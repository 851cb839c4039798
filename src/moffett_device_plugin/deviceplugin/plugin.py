"""The life of one resource: serve it, register it, and register it again whenever
the kubelet may have lost it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..api import KUBELET_SOCKET
from ..resources.plugin_config import PluginOptions
from ..runtime.counters import ResourceCounters
from ..runtime.watchable import Watchable
from .kubelet_directory import KubeletDirectory
from .listener import Listener
from .peers import Peers
from .registration import RegistrationError, register
from .service import AdvertisedDevices, Allocator, DevicePluginService, options_of
from .socket_names import socket_prefix
from .sockets import PluginSocket, PluginSockets

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RegistrationTimeouts:
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
class RegistrationTrigger:
    """What calls for a registration: a change in any of these."""

    kubelet: tuple[int, int, int] | None  # a new kubelet.sock
    departures: int  # another copy went: the kubelet may have taken it for us
    lost: int  # the kubelet stopped listening to us
    options: PluginOptions  # what it is told to call


class ResourcePlugin:
    """Serves one resource to the kubelet until it is cancelled.

    `registered` tells whether it listens to us now.
    """

    def __init__(
        self,
        resource: str,
        directory: KubeletDirectory,
        advertised: Watchable[AdvertisedDevices],
        allocator: Allocator,
        options: Callable[[], PluginOptions] = PluginOptions,
        counters: ResourceCounters | None = None,
        allocated: Callable[[], object] = lambda: None,
        timeouts: RegistrationTimeouts = RegistrationTimeouts(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self.counters = counters or ResourceCounters()
        self.service = DevicePluginService(
            resource, advertised, allocator, options, self.counters, allocated
        )
        self._plugin_options = options
        self._directory = directory
        self._advertised = advertised
        self._timeouts = timeouts
        self._clock = clock
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
            sockets = PluginSockets(self._directory.path, self.resource, self.service, tasks)
            prefix = socket_prefix(self.resource)
            peers = Peers(self._directory.path, prefix, sockets.instance, tasks)
            self._directory.listing.listen(self._bell.set)
            self.service.changed.listen(self._bell.set)
            peers.departures.listen(self._bell.set)
            try:
                await self._stay_registered(sockets, peers)
            finally:
                self._directory.listing.forget(self._bell.set)
                await self._leave(sockets, peers)

    async def _stay_registered(self, sockets: PluginSockets, peers: Peers) -> None:
        done: RegistrationTrigger | None = None  # what we last registered for
        tried: RegistrationTrigger | None = None
        failures = 0
        last_time = float("-inf")  # of the last accepted registration
        deadline = float("inf")  # for the kubelet to dial back
        while True:
            self._bell.clear()
            listing = self._directory.listing.value
            peers.see(listing.sockets)
            sockets.tidy()
            trigger = RegistrationTrigger(
                listing.kubelet, peers.departures.value, sockets.lost, self._plugin_options()
            )
            if trigger.kubelet is not None and trigger != done:
                sockets.renew()
            wait: float | None = None
            if not listing.exists:
                self._waiting(f"{self._directory.path} is not there")
            elif listing.kubelet is None:
                self._waiting(f"there is no {KUBELET_SOCKET}")
            elif not await self._listening(sockets.newest.listener):
                wait = self._timeouts.refused_retry
            else:
                if tried is None or tried.kubelet != trigger.kubelet:
                    failures = 0
                tried = trigger
                now = self._clock()
                if done == trigger:
                    wait = None if sockets.newest.stream_count.started else deadline - now
                    if wait is not None and wait <= 0:
                        done, failures = None, failures + 1
                        self._waiting("it accepted the registration and never dialled back")
                        continue
                elif now < (due := last_time + self._pause(failures)):
                    wait = due - now
                else:
                    steady = now - last_time > self._timeouts.steady
                    ok = await self._register(sockets.newest, failures)
                    last_time = self._clock()
                    if ok:
                        done = trigger
                        deadline = last_time + self._timeouts.dial_back
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
            min(self._timeouts.first_retry * 2 ** min(failures, 30), self._timeouts.last_retry)
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

    async def _register(self, own: PluginSocket, failures: int) -> bool:
        started = self._clock()
        socket = self._directory.path / KUBELET_SOCKET
        try:
            await register(socket, own.name, self.resource, options_of(self._plugin_options()))
        except RegistrationError as error:
            if error.kubelet_is_there:
                own.used = True
                self.counters.registration_failures += 1
                self._waiting(f"it refused the registration: {error}")
                await self._wait(self._timeouts.refused_retry)
            elif failures > 8:  # a socket is there for a moment before its kubelet listens
                self._waiting(f"{socket}: {error}")
            return False
        own.used = True
        self.counters.registrations += 1
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

    async def _leave(self, sockets: PluginSockets, peers: Peers) -> None:
        """Another copy, if there is one, sees our sockets go and registers; only then
        do we stop serving, so that the kubelet always has somebody."""
        sockets.unlink()
        if peers.alive and self.service.streams:
            await asyncio.sleep(self._timeouts.handover)
        sockets.close()
