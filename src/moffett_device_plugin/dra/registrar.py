"""How the kubelet finds the driver: by its socket in the plugins_registry directory.

Each instance has a socket of its own name, so that two live together during an update. It
serves everything: registration, claims and health.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from .. import api
from ..api import pluginregistration_pb2 as pb
from ..deviceplugin.kubelet_directory import KubeletDirectory
from ..deviceplugin.listener import Listener
from ..deviceplugin.peers import Peers
from ..grpc.server import Method, Server, Unary
from ..runtime.watchable import Watchable, set_within, waking
from .context import TIMES, DriverTimes
from .names import DRIVER

log = logging.getLogger(__name__)

#: What the names of our sockets begin with; the rest is the instance's.
PREFIX = "spu-dra-"
#: Seconds until it is tried again to listen.
RETRY = 5.0
#: Seconds that running calls have to end, where no other instance takes over.
LAST_CALLS = 0.2


class Registrar:
    """Serves `methods`, and the kubelet's registration, until it is cancelled.

    `registered` is 0 until a kubelet has accepted the driver, and grows with each
    registration: a kubelet that restarts registers it again.
    """

    def __init__(
        self, directory: Path, methods: Mapping[str, Method], times: DriverTimes = TIMES
    ) -> None:
        self.instance = f"{PREFIX}{os.urandom(3).hex()}-reg"
        self.socket = directory / f"{self.instance}.sock"
        self.registered: Watchable[int] = Watchable(0)
        self._directory = KubeletDirectory(directory)
        self._times = times
        self._asked = False
        self._error = ""
        self._methods = {
            api.GET_INFO: Unary(self._info),
            api.NOTIFY_REGISTRATION: Unary(self._notified),
            **methods,
        }

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            server = Server(self._methods, tasks)
            listener = Listener(self.socket, server.protocol)
            peers = Peers(self._directory.path, PREFIX, self.instance, tasks)
            tasks.create_task(self._directory.run())
            tasks.create_task(self._report_unseen())
            wake = asyncio.Event()
            try:
                with waking(wake, self._directory.listing, peers.departures):
                    while True:
                        wake.clear()
                        listening = await self._listen(listener)
                        peers.see(self._directory.listing.value.sockets)
                        await set_within(wake, None if listening else RETRY)
            finally:
                listener.unlink()  # the kubelet turns to another instance, if there is one
                await asyncio.sleep(self._times.handover if peers.staying else LAST_CALLS)
                listener.close_server()
                server.close()

    async def _listen(self, listener: Listener) -> bool:
        again = listener.ever_listened
        try:
            if await listener.ensure():
                event = "dra-socket-recreated" if again else "dra-socket-created"
                log.info(event, extra={"socket": listener.path})
        except OSError as error:
            why = f"cannot listen on {listener.path}: {error.strerror or error}"
            if why != self._error:
                self._error = why
                remedy = "mount the kubelet's plugins_registry directory"
                log.warning("dra-not-registered", extra={"why": why, "remedy": remedy})
            return False
        self._error = ""
        return True

    async def _report_unseen(self) -> None:
        await asyncio.sleep(self._times.unseen)
        if not self._asked:
            why = f"no kubelet has asked at {self.socket} in {self._times.unseen:g} s"
            remedy = "check that this is the plugins_registry of the kubelet's root directory"
            log.warning("dra-not-registered", extra={"why": why, "remedy": remedy})

    def _info(self, request: bytes) -> bytes:
        pb.InfoRequest.FromString(request)
        self._asked = True
        return pb.PluginInfo(
            type=api.DRA_PLUGIN,
            name=DRIVER,
            supported_versions=[*api.DRA_SERVICES, *api.HEALTH_SERVICES],
        ).SerializeToString()

    def _notified(self, request: bytes) -> bytes:
        status = pb.RegistrationStatus.FromString(request)
        if status.plugin_registered:
            number = self.registered.value + 1
            log.info("dra-registered", extra={"driver": DRIVER, "socket": self.socket.name})
            self.registered.set(number)
        else:
            remedy = "it is the kubelet's to try again; it has to be 1.34 or later"
            extra = {"driver": DRIVER, "why": status.error, "remedy": remedy}
            log.error("dra-registration-refused", extra=extra)
        return pb.RegistrationStatusResponse().SerializeToString()
