"""The health of the node's chips, as the kubelet shows it in the status of their pods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping

from .. import api
from ..api import dra_health_pb2 as pb
from ..devices.state import NodeState
from ..grpc.server import Method, Streaming
from ..runtime.watchable import Watchable
from .names import device_name, pool_name

#: Seconds between two reports of the same. The kubelet forgets a device that it has not
#: heard of for as long as the report says.
REPEAT = 20.0
FORGET = 60
#: The kubelet's own limit, in bytes.
MAX_MESSAGE = 1024


class HealthStream:
    """Reports every chip when anything changed, and again every `repeat` seconds."""

    def __init__(
        self,
        state: Watchable[NodeState],
        node: str,
        repeat: float = REPEAT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._pool = pool_name(node)
        self._repeat = repeat
        self._clock = clock

    def methods(self) -> Mapping[str, Method]:
        return {
            api.watch_health_path(service): Streaming(self._watch)
            for service in api.HEALTH_SERVICES
        }

    async def _watch(self, request: bytes) -> AsyncIterator[bytes]:
        pb.NodeWatchResourcesRequest.FromString(request)
        sent: object = None
        version, sent_at = -1, 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(self._repeat):
                    _, version = await self._state.after(version)
            except TimeoutError:
                pass
            state = self._state.value
            if not state.settled:
                continue  # what is not known yet is not reported
            health = _health(state)
            # Every reading of a chip changes the state, and few change its health.
            if health != sent or loop.time() - sent_at >= self._repeat:
                sent, sent_at = health, loop.time()
                yield report(state, self._pool, int(self._clock()))


def _health(state: NodeState) -> object:
    return [(device.id, _message(state, device.id)) for device in state.snapshot.devices]


def report(state: NodeState, pool: str, now: int) -> bytes:
    """All chips that the node ever had, as the kubelet takes them. Pure."""
    response = pb.NodeWatchResourcesResponse()
    for device in state.snapshot.devices:
        healthy, message = _message(state, device.id)
        response.devices.add(
            device=pb.DeviceIdentifier(pool_name=pool, device_name=device_name(device.id)),
            health=pb.HEALTHY if healthy else pb.UNHEALTHY,
            last_updated_time=now,
            health_check_timeout_seconds=FORGET,
            message=message,
        )
    return response.SerializeToString()


def _message(state: NodeState, device_id: str) -> tuple[bool, str]:
    status = state.health_statuses.get(device_id)
    reasons = () if status is None else status.reasons
    text = ", ".join(f"{reason.code} ({reason.message})" for reason in reasons)
    cut = text.encode(errors="replace")[:MAX_MESSAGE].decode(errors="ignore")
    return state.healthy(device_id), cut
