"""Nodes, each with the product's own code for labels, events, the condition, the watch of
its labels and the slices of DRA; the states of its devices are made beforehand."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus, observe_smi
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.dra.publishing import Publisher, PublisherContext
from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.hardware.simulation import Faults, build, parse_spec
from moffett_device_plugin.kubernetes import client, features
from moffett_device_plugin.kubernetes.dra import DraClient
from moffett_device_plugin.kubernetes.features import run_api_features
from moffett_device_plugin.kubernetes.nodelabels import NodeLabelSink
from moffett_device_plugin.kubernetes.settings import ApiFeatures, ApiSettings
from moffett_device_plugin.labels.compute import ResourceFacts
from moffett_device_plugin.runtime.watchable import Watchable

from .server import Connection, Server

#: Eight cards of three devices.
SPEC = "8xS30"


@dataclass(frozen=True, slots=True)
class States:
    """States of a node: every device healthy, one of them unhealthy, all of them unhealthy."""

    healthy: NodeState
    one_unhealthy: NodeState
    all_unhealthy: NodeState


async def states(spec: str = SPEC) -> States:
    """From a simulated node, by the product's own rules."""
    layout = build(parse_spec(spec))
    ids = [chip.bus_id for chip in layout.chips]

    async def state(unhealthy: list[str]) -> NodeState:
        faults = Faults()
        for bus_id in unhealthy:
            faults = faults.with_fault(bus_id, "ecc")
        node = SimulatedNode(layout)
        node.set(faults)
        snapshot = observe_bus(Snapshot(), node.scan(Look()), node.sola_version())
        snapshot = observe_smi(snapshot, await node.query_smi(), snapshot.scan)
        evaluation = evaluate(snapshot, {}, HealthPolicy(), 0.0)
        return NodeState(snapshot, dict(evaluation.health_statuses), settled=True)

    return States(await state([]), await state(ids[:1]), await state(ids))


class Node:
    """The API features of one daemon; with `dra` what it publishes, and none of them."""

    def __init__(self, number: int, wanted: ApiFeatures, *, by_label: bool, dra: bool) -> None:
        self.name = f"node-{number}"
        self.state: Watchable[NodeState] = Watchable(NodeState())
        self.labels: Watchable[Mapping[str, str] | None] = Watchable(None)
        self._features = wanted
        self._by_label = by_label
        self._dra = dra

    async def run(self, starts: float, healthy: NodeState) -> None:
        """Starts `starts` seconds from now and runs until it is cancelled."""
        await asyncio.sleep(starts)
        self.state.set(healthy)
        settings = ApiSettings("https://10.96.0.1:443", self.name, Path("token"), Path("ca"))
        if self._dra:
            context = PublisherContext(
                self.name, self.state, Watchable(1), Watchable({}), Watchable(True)
            )
            await Publisher(DraClient(settings), context).run()
        await run_api_features(
            settings,
            self._features,
            self.state,
            lambda: (ResourceFacts("moffett.ai/spu"),),
            dict,
            self.labels if self._by_label else None,
        )


class Fleet:
    """A number of nodes and their server."""

    def __init__(
        self,
        nodes: int,
        server: Server,
        wanted: ApiFeatures,
        *,
        by_label: bool = True,
        dra: bool = False,
        seed: int = 1,
    ) -> None:
        self.server = server
        self.nodes = [Node(n, wanted, by_label=by_label, dra=dra) for n in range(nodes)]
        self.chance = random.Random(seed)

    async def run(
        self,
        seconds: float,
        healthy: NodeState,
        spread: float,
        integrations: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """Starts all nodes at random within `spread` seconds, with what goes on `beside`
        them, and ends after `seconds`."""
        Connection.server = self.server
        random.seed(self.chance.random())
        with (
            mock.patch.object(client, "HttpConnection", Connection),
            mock.patch.object(client, "read_token", lambda _: "token"),
            # Its clock is a default argument, and so the real one.
            mock.patch.object(
                features, "NodeLabelSink", partial(NodeLabelSink, clock=time.monotonic)
            ),
        ):
            tasks = [
                asyncio.ensure_future(node.run(self.chance.uniform(0, spread), healthy))
                for node in self.nodes
            ]
            if integrations is not None:
                tasks.append(asyncio.ensure_future(integrations))
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
