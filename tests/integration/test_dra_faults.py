"""Random faults of the API server, the kubelet and the devices: whatever happened, the slices
are right in the end."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.dra.names import device_name
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.kubernetes.rate_limiter import TokenBucket
from tests.integration.test_dra_publishing import IDS, NAME, Publishing, publishing
from tests.support.apiserver import Request, refusal
from tests.support.running import on_a_loop
from tests.support.values import state_of

STATUSES = (401, 403, 409, 429, 500, 503)


def node_with(sick: list[str]) -> NodeState:
    faults = Faults()
    for chip in sick:
        faults = faults.with_fault(chip, "ecc")
    return state_of("2xS30", faults)


class Plan:
    """What happens, by a seed. `sick` are the chips that are so at the end."""

    def __init__(self, it: Publishing, seed: int) -> None:
        self.it = it
        self.chance = random.Random(seed)
        self.sick: list[str] = []
        self.away = False
        self.stops = 0
        self.on = True

    async def step(self) -> None:
        steps = (
            self.health, self.health, self.removed, self.edited, self.refused, self.cut,
            self.kubelet, self.toggled, self.gate, self.node,
        )  # fmt: skip
        self.chance.choice(steps)()
        if self.away:
            await self.it.server.start()
            self.away = False
        elif self.stops < 2 and self.chance.random() < 0.15:
            await self.it.server.stop()
            self.away, self.stops = True, self.stops + 1
        # At any moment of what the publisher is at.
        await asyncio.sleep(self.chance.uniform(0, 0.2))

    def health(self) -> None:
        self.sick = [chip for chip in IDS if self.chance.random() < 0.3]
        self.it.state.set(node_with(self.sick))

    def removed(self) -> None:
        if NAME in self.it.server.slices:
            self.it.server.remove_slice(NAME)
        self.health()

    def edited(self) -> None:
        if stored := self.it.server.slices.get(NAME):
            self.it.server.put_slice(NAME, {**stored, "spec": {**stored["spec"], "devices": []}})
        self.health()

    def refused(self) -> None:
        status, left = self.chance.choice(STATUSES), self.chance.randint(1, 2)

        def rule(request: Request) -> object:
            nonlocal left
            if request.method == "PATCH" and left:
                left -= 1
                return refusal(status, "some reason")
            return None

        self.it.server.rule = rule  # type: ignore[assignment]
        self.health()

    def cut(self) -> None:
        self.it.server.cut()
        self.health()

    def kubelet(self) -> None:
        self.it.registered.set(self.it.registered.value + 1)

    def toggled(self) -> None:
        self.on = not self.on
        self.it.on.set(self.on)

    def gate(self) -> None:
        self.it.server.keeps_taints = not self.it.server.keeps_taints
        self.health()

    def node(self) -> None:
        self.it.server.node["metadata"]["uid"] = f"uid-{self.chance.random()}"
        self.it.server.collect()
        self.health()

    async def repaired(self) -> None:
        if self.away:
            await self.it.server.start()
        self.it.server.rule = lambda _: None
        self.it.server.keeps_taints = True
        self.it.server.cut()  # as one that was started with another gate
        self.it.on.set(True)
        self.it.state.set(node_with(self.sick))


@pytest.mark.parametrize("seed", range(4))
@on_a_loop
async def test_after_any_faults_the_slice_is_that_of_the_node(tmp_path: Path, seed: int) -> None:
    async with publishing(tmp_path, bucket=TokenBucket(1000, 0.001)) as it:
        plan = Plan(it, seed)
        for _ in range(25):
            await plan.step()
        await plan.repaired()

        def right() -> bool:
            sick = sorted(device_name(chip) for chip in plan.sick)
            stored = it.server.slices.get(NAME)
            if stored is None or len(it.devices) != len(IDS) or sorted(it.tainted) != sick:
                return False
            (owner,) = stored["metadata"]["ownerReferences"]
            return bool(owner["uid"] == it.server.node["metadata"]["uid"])

        await it.until(right)
        assert list(it.server.slices) == [NAME]
