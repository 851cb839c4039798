"""The kubelet's side of DRA: it finds drivers in its plugins_registry directory, and calls
the one of each name that registered last and is connected.

As kubelet 1.37.2 was observed to do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import api
from ..api import dra_health_pb2 as health
from ..api import dra_pb2 as dra
from ..api import pluginregistration_pb2 as pb
from ..grpc.client import Channel
from ..grpc.messages import StatusError
from ..runtime.watchable import Watchable

#: Seconds: of the kubelet's own calls.
INFO_TIMEOUT = 1.0
NOTIFY_TIMEOUT = 5.0
CALL_TIMEOUT = 45.0
#: Between two looks at the directory; the real one looks once a second.
LOOK = 0.02


class NoDriverError(Exception):
    """No driver of this name is registered: the pod waits."""


@dataclass
class RegisteredDriver:
    """An instance of a driver, by its socket in the registry."""

    socket: Path
    name: str
    services: tuple[str, ...]
    channel: Channel
    health: dict[str, health.DeviceHealth] = field(default_factory=dict)  # by device

    @property
    def connected(self) -> bool:
        return not self.channel.lost.is_set()


class DraKubelet:
    """Registers what it finds in `registry` while `run` is not cancelled.

    `known` are the services that this kubelet knows, `refuse` the error that it answers
    registrations with. `changed` counts registrations, deregistrations and health reports.
    """

    def __init__(
        self,
        registry: Path,
        known: Sequence[str] = (*api.DRA_SERVICES, *api.HEALTH_SERVICES),
        refuse: str = "",
    ) -> None:
        self.registry = registry
        self.drivers: list[RegisteredDriver] = []  # in the order of their registration
        self.changed: Watchable[int] = Watchable(0)
        self.failures: list[str] = []
        self._known = tuple(known)
        self._refuse = refuse
        self._tried: set[tuple[str, int]] = set()
        self._watching: dict[Path, asyncio.Task[None]] = {}

    async def run(self) -> None:
        self.registry.mkdir(parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as tasks:
            try:
                while True:
                    await self._look(tasks)
                    await asyncio.sleep(LOOK)
            finally:
                for driver in self.drivers:
                    driver.channel.close()
                self.drivers.clear()

    async def prepare(
        self, *claims: dra.Claim, driver: str
    ) -> Mapping[str, dra.NodePrepareResourceResponse]:
        """By uid. Raises NoDriverError, StatusError, and AssertionError for an answer that
        a kubelet refuses."""
        chosen = self._connected(driver)
        service = self._service(chosen)
        request = dra.NodePrepareResourcesRequest(claims=claims).SerializeToString()
        raw = await chosen.channel.unary(api.prepare_path(service), request, CALL_TIMEOUT)
        answers = dra.NodePrepareResourcesResponse.FromString(raw).claims
        _check_uids(claims, list(answers))
        return dict(answers)

    async def unprepare(
        self, *claims: dra.Claim, driver: str
    ) -> Mapping[str, dra.NodeUnprepareResourceResponse]:
        """As `prepare`."""
        chosen = self._connected(driver)
        service = self._service(chosen)
        request = dra.NodeUnprepareResourcesRequest(claims=claims).SerializeToString()
        raw = await chosen.channel.unary(api.unprepare_path(service), request, CALL_TIMEOUT)
        answers = dra.NodeUnprepareResourcesResponse.FromString(raw).claims
        _check_uids(claims, list(answers))
        return dict(answers)

    def registered(self, driver: str) -> list[RegisteredDriver]:
        return [one for one in self.drivers if one.name == driver]

    # -- registration -----------------------------------------------------------------

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        there = {
            path: path.lstat().st_ino
            for path in self.registry.iterdir()
            if path.is_socket() and not path.name.startswith(".")
        }
        for driver in [one for one in self.drivers if one.socket not in there]:
            self.drivers.remove(driver)
            driver.channel.close()
            self._happened()
        for path, inode in sorted(there.items()):
            if (path.name, inode) not in self._tried:
                self._tried.add((path.name, inode))
                await self._register(path, tasks)

    async def _register(self, path: Path, tasks: asyncio.TaskGroup) -> None:
        try:
            async with await Channel.connect(path, str(path)) as channel:
                raw = await channel.unary(api.GET_INFO, b"", INFO_TIMEOUT)
                info = pb.PluginInfo.FromString(raw)
                error = self._refuse or self._why_not(info)
                status = pb.RegistrationStatus(plugin_registered=not error, error=error)
                await channel.unary(
                    api.NOTIFY_REGISTRATION, status.SerializeToString(), NOTIFY_TIMEOUT
                )
        except (OSError, StatusError) as failure:
            self.failures.append(f"{path.name}: {failure}")
            return
        if error:
            self.failures.append(f"{path.name}: {error}")
            return
        endpoint = Path(info.endpoint) if info.endpoint else path
        channel = await Channel.connect(endpoint)
        services = tuple(info.supported_versions)
        driver = RegisteredDriver(path, info.name, services, channel)
        self.drivers.append(driver)
        for service in api.HEALTH_SERVICES:  # the kubelet walks its own list
            if service in services and service in self._known:
                tasks.create_task(self._watch_health(driver, service))
                break
        self._happened()

    def _why_not(self, info: pb.PluginInfo) -> str:
        if info.type != api.DRA_PLUGIN:
            return f"no handler registered for plugin type {info.type}"
        if not any(name in self._known for name in info.supported_versions):
            return f"no supported version among {list(info.supported_versions)}"
        return ""

    def _connected(self, name: str) -> RegisteredDriver:
        for driver in reversed(self.registered(name)):
            if driver.connected:
                return driver
        raise NoDriverError(f"DRA driver {name} is not registered")

    def _service(self, driver: RegisteredDriver) -> str:
        """The first of the driver's own list that this kubelet knows."""
        return next(
            name for name in driver.services if name in self._known and name in api.DRA_SERVICES
        )

    async def _watch_health(self, driver: RegisteredDriver, service: str) -> None:
        try:
            async for raw in driver.channel.stream(api.watch_health_path(service), b""):
                for one in health.NodeWatchResourcesResponse.FromString(raw).devices:
                    driver.health[one.device.device_name] = one
                self._happened()
        except StatusError:
            pass
        driver.health.clear()  # the end of a stream drops what it said
        self._happened()

    def _happened(self) -> None:
        self.changed.set(self.changed.value + 1)


def _check_uids(claims: Sequence[dra.Claim], answered: Sequence[str]) -> None:
    asked = sorted(claim.uid for claim in claims)
    if sorted(answered) != asked:
        raise AssertionError(f"answers for {sorted(answered)}, and asked were {asked}")
