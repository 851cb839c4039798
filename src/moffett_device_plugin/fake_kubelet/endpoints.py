"""What a kubelet knows of one resource: its devices, and the plugins that serve it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.client import Channel
from .behaviour import Ends


@dataclass(slots=True, eq=False)
class Endpoint:
    """A plugin that is connected. `channel` is None after its connection was lost."""

    name: str = ""  # of its socket
    channel: Channel | None = None
    options: pb.DevicePluginOptions = field(default_factory=pb.DevicePluginOptions)
    end_ignored: bool = False  # the end of its connection has no effect

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()


@dataclass(slots=True)
class Resource:
    """`endpoint` takes the calls; `connected` are all whose lists are read, by socket name.
    `client` is the one that a kubelet from 1.25 to 1.36 closes when any connection ends."""

    endpoint: Endpoint
    devices: dict[str, pb.Device] = field(default_factory=dict)
    lists: int = 0  # received from `endpoint`
    connected: dict[str, Endpoint] = field(default_factory=dict)
    client: Endpoint | None = None

    def adopt(self, endpoint: Endpoint) -> None:
        """From now on this plugin takes the calls."""
        self.endpoint, self.lists = endpoint, 0
        self.connected[endpoint.name] = self.client = endpoint

    def ended(self, endpoint: Endpoint, ends: Ends, order: random.Random) -> None:
        """A connection ended. `order` chooses where a kubelet takes any of several."""
        if endpoint.end_ignored:
            return
        if self.connected.get(endpoint.name) is endpoint:
            del self.connected[endpoint.name]
        if ends == "any":
            hung_up_on, self.client = self.client, None
            if hung_up_on is not None:
                hung_up_on.close()
                self._fail()
        elif not self.connected:
            self._fail()
        elif ends == "one":
            self.endpoint = order.choice(list(self.connected.values()))
        elif self.endpoint is endpoint:
            self._fail()

    def _fail(self) -> None:
        for device in self.devices.values():
            device.health = api.UNHEALTHY
        self.endpoint.close()
        self.endpoint.channel = None
