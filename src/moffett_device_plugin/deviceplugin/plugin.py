"""The life of one plugin: serve a resource, register it, and register it again whenever
the kubelet may have lost it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from ..api import KUBELET_SOCKET
from ..resources.plugin_config import PluginSpec
from ..runtime.watchable import Watchable, set_within, waking
from . import registration
from .context import PluginContext
from .kubelet_client import RegistrationError, register
from .peers import Peers
from .registration import (
    Action,
    Bind,
    ClearClient,
    Observed,
    Register,
    RegistrationTrigger,
    State,
    Wait,
    decide,
)
from .service import Allocator, DevicePluginService, options_of
from .socket_names import socket_prefix
from .sockets import CLEARS, PluginSocket, PluginSockets

log = logging.getLogger(__name__)


class ResourcePlugin:
    """Serves one resource to the kubelet until it is cancelled. `clock` is in seconds."""

    def __init__(
        self,
        resource: str,
        spec: Watchable[PluginSpec],
        allocator: Allocator,
        context: PluginContext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self.counters = context.counters.of(resource)
        self.service = DevicePluginService(spec, allocator, self.counters)
        self._spec = spec
        self._directory = context.directory
        self._timeouts = context.timeouts
        self._clock = clock
        self._wake = asyncio.Event()
        self._state = State()
        self._logged = ""  # the last reason in the log why the kubelet does not have us

    @property
    def registered(self) -> bool:
        """Whether a kubelet listens to us now."""
        return self.service.streams > 0

    async def run(self) -> None:
        version = -1
        while not self._spec.value.advertised:  # a node without devices advertises nothing
            _, version = await self._spec.after(version)
        async with asyncio.TaskGroup() as tasks:
            sockets = PluginSockets(self._directory.path, self.resource, self.service, tasks)
            prefix = socket_prefix(self.resource)
            peers = Peers(self._directory.path, prefix, sockets.instance, tasks)
            watched = (self._directory.listing, self.service.changed, peers.departures, self._spec)
            try:
                with waking(self._wake, *watched):
                    await self._stay_registered(sockets, peers)
            finally:
                await self._leave(sockets, peers)

    async def _stay_registered(self, sockets: PluginSockets, peers: Peers) -> None:
        while True:
            self._wake.clear()
            now, timeouts = self._clock(), self._timeouts
            seen = self._observe(sockets, peers)
            self._state = registration.observed(self._state, seen, now, timeouts)
            action = decide(self._state, now, timeouts)
            self._log_waiting(action.reason)
            if isinstance(action, Wait):
                await set_within(self._wake, None if action.until is None else action.until - now)
            else:
                self._state = await self._act(action, self._state, sockets)

    async def _act(self, action: Action, state: State, sockets: PluginSockets) -> State:
        match action:
            case Bind():
                own = sockets.newest
            case Register():
                sockets.renew()
                own = sockets.newest
            case ClearClient():
                own = sockets.another(refuse=CLEARS)
            case _:
                sockets.close_older()
                return registration.older_closed(state, self._clock())
        made_again = own.listener.ever_listened
        try:
            if await own.listener.ensure() and made_again:
                log.info("plugin-socket-recreated", extra={"socket": own.listener.path})
        except OSError as error:
            why = f"cannot listen on {own.listener.path}: {error.strerror}"
            return registration.not_listening(state, self._clock(), why, self._timeouts)
        if isinstance(action, Register):
            return await self._register(own, state)
        return state if isinstance(action, Bind) else await self._clear(own, sockets, state)

    async def _clear(self, own: PluginSocket, sockets: PluginSockets, state: State) -> State:
        """Registers `own` so that the kubelet refuses it, as is wanted. One that accepts it
        has it as any other."""
        try:
            await self._call_register(own)
        except RegistrationError as error:
            own.close()
            if not error.answered:
                return registration.unreachable(state, self._clock(), str(error))
            log.info("kubelet-client-cleared", extra={"resource": self.resource})
            return registration.cleared(state, self._clock())
        sockets.renew(own)
        return self._accepted(own, state)

    def _observe(self, sockets: PluginSockets, peers: Peers) -> Observed:
        listing = self._directory.listing.value
        peers.see(listing.sockets)
        sockets.tidy()
        trigger = RegistrationTrigger(
            listing.kubelet, peers.departures.value, sockets.lost, self._spec.value.options
        )
        return Observed(
            trigger,
            directory="" if listing.exists else str(self._directory.path),
            bound=sockets.newest.listener.intact(),
            listening=sockets.newest.stream_count.started > 0,
            options_asked=sockets.newest.stream_count.options_asked,
            older=sockets.older,
            leaving=bool(peers.leaving),
        )

    async def _register(self, own: PluginSocket, state: State) -> State:
        started = self._clock()
        try:
            await self._call_register(own)
        except RegistrationError as error:
            if not error.answered:
                return registration.unreachable(state, self._clock(), str(error))
            own.used = True
            self.counters.registration_failures += 1
            return registration.refused(state, self._clock(), str(error), self._timeouts)
        advertised = self._spec.value.advertised
        log.info(
            "registered",
            extra={
                "resource": self.resource,
                "devices": len(advertised),
                "healthy": sum(device.healthy for device in advertised),
                "took_ms": round((self._clock() - started) * 1000, 1),
            },
        )
        return self._accepted(own, state)

    async def _call_register(self, own: PluginSocket) -> None:
        options = options_of(self._spec.value.options)
        await register(self._directory.path / KUBELET_SOCKET, own.name, self.resource, options)

    def _accepted(self, own: PluginSocket, state: State) -> State:
        own.used = True
        self.counters.registrations += 1
        self._logged = ""
        return registration.accepted(state, self._clock())

    def _log_waiting(self, reason: str) -> None:
        """Once for each reason why the kubelet does not have us."""
        if reason and reason != self._logged:
            self._logged = reason
            log.warning("waiting-for-kubelet", extra={"resource": self.resource, "why": reason})

    async def _leave(self, sockets: PluginSockets, peers: Peers) -> None:
        """Another instance, if there is one, sees our sockets go and registers; only then
        do we stop serving, so that the kubelet always has a plugin to call."""
        if self._state.cleared_at is not None and not peers.staying:
            # Without a client the kubelet would not notice our end.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeouts.handover):
                    await self._act(Register(), self._state, sockets)
        sockets.unlink()
        if peers.staying and self.service.streams:
            await asyncio.sleep(self._timeouts.handover)
        sockets.close()
