"""The Node condition `SPUHealthy`."""

from __future__ import annotations

import asyncio
import calendar
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..devices.cards import cards_of
from ..devices.state import NodeState
from ..runtime.watchable import Watchable
from .client import ApiClient
from .errors import ApiError, Backoff
from .events import MAX_MESSAGE, timestamp
from .rate_limiter import TokenBucket
from .responses import Object

TYPE = "SPUHealthy"
#: Minimum seconds between two writes of an unchanged condition.
HEARTBEAT = 300.0
#: Burst of writes for changes, and seconds to one more.
BURST, PERIOD = 6, 30.0


@dataclass(frozen=True, slots=True)
class Condition:
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def condition_of(state: NodeState) -> Condition:
    """The condition for a settled state: devices with their reason codes. Counters are left
    to events, or every new error would cause a write."""
    devices = state.snapshot.devices
    if not devices:
        return Condition("Unknown", "NoDevices", "no SPU was found on this node")
    unhealthy = [device for device in devices if not state.healthy(device.id)]
    if not unhealthy:
        cards = len(cards_of(devices))
        text = f"{_counted(len(devices), 'device')} on {_counted(cards, 'card')} healthy"
        return Condition("True", "DevicesHealthy", text)
    text = f"{len(unhealthy)} of {_counted(len(devices), 'device')} unhealthy: "
    names: list[str] = []
    for number, device in enumerate(unhealthy):
        health_status = state.health_statuses.get(device.id)
        codes = ", ".join(sorted(health_status.codes)) if health_status else "not evaluated"
        names.append(f"{device.id} ({codes})")
        if len(text) + len("; ".join(names)) > MAX_MESSAGE - 20:
            names[-1] = f"and {len(unhealthy) - number} more"
            break
    return Condition("False", "DevicesUnhealthy", text + "; ".join(names))


def condition_patch(condition: Condition, heartbeat: float, transition: float) -> dict[str, Any]:
    """A strategic merge patch of the node's status. Times in seconds since the epoch."""
    return {
        "status": {
            "conditions": [
                {
                    "type": TYPE,
                    "status": condition.status,
                    "reason": condition.reason,
                    "message": condition.message,
                    "lastHeartbeatTime": timestamp(heartbeat),
                    "lastTransitionTime": timestamp(transition),
                }
            ]
        }
    }


def condition_in(node: Object) -> Object | None:
    """The plugin's condition in a Node object; None where it is missing or malformed."""
    status = node.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    for found in conditions if isinstance(conditions, list) else ():
        if isinstance(found, dict) and found.get("type") == TYPE:
            return found
    return None


class ConditionReporter:
    """Keeps the condition up to date."""

    def __init__(
        self,
        client: ApiClient,
        state: Watchable[NodeState],
        heartbeat: float = HEARTBEAT,
        backoff: Backoff | None = None,
        bucket: TokenBucket | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._state = state
        self._heartbeat = heartbeat
        self._backoff = backoff or Backoff()
        self._bucket = bucket or TokenBucket(BURST, PERIOD)
        self._chance = chance
        self._status: str | None = None  # the last one written
        self._transition = 0.0
        self._pending: tuple[str, float] | None = None  # the status to write, and its time

    async def run(self) -> None:
        version = -1
        while not self._state.value.settled:
            _, version = await self._state.after(version)
        await self._persist(self._recall)
        written: Condition | None = None
        while True:
            if condition_of(self._state.value) != written:
                await asyncio.sleep(self._bucket.wait(time.monotonic()))
                self._bucket.take(time.monotonic())
            written = await self._persist(self._write)
            # With jitter: not all nodes at the same time, even if they started together.
            due = time.monotonic() + self._heartbeat * (1 + 0.2 * self._chance())
            while (left := due - time.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left):
                        _, version = await self._state.after(version)
                except TimeoutError:
                    break
                if condition_of(self._state.value) != written:
                    break

    async def _recall(self) -> None:
        """Reads the condition of an earlier run: a restart is not a transition."""
        found = condition_in(await self._client.get_node())
        if found is not None:
            self._status = str(found.get("status"))
            self._transition = _seconds(found.get("lastTransitionTime"))

    async def _write(self) -> Condition:
        """Writes the current condition, which may have changed since the last attempt."""
        condition, now = condition_of(self._state.value), time.time()
        transition = self._transition
        if condition.status != self._status or not transition:
            if self._pending is None or self._pending[0] != condition.status:
                self._pending = (condition.status, now)
            transition = self._pending[1]
        await self._client.patch_node_status(condition_patch(condition, now, transition))
        self._status, self._transition, self._pending = condition.status, transition, None
        return condition

    async def _persist(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                result = await call()
            except ApiError as error:
                await asyncio.sleep(self._backoff.failed(error))
            else:
                self._backoff.succeeded()
                return result


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _seconds(text: object) -> float:
    try:
        return float(calendar.timegm(time.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0
