"""The situations, and what is counted in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from moffett_device_plugin.kubernetes.settings import ApiFeatures

from .fleet import Fleet, states
from .server import Server

HOUR = 3600.0
ALL = ApiFeatures(labels=True, events=True, condition=True)
#: Without the condition, the one write that is repeated when nothing changes.
QUIET = ApiFeatures(labels=True, events=True)
#: Seconds in which the fleet starts before anything else happens.
_START = 600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of so many nodes in `seconds`. `requests` by what was asked; `peak` and
    `peak_handshakes` (TLS) are of the busiest second. `half_after` and `all_after`: seconds
    until that many nodes had made the writes of the situation, where it has any."""

    nodes: int
    seconds: float
    requests: dict[str, int]
    peak: int
    peak_handshakes: int
    refused: int
    half_after: float | None = None
    all_after: float | None = None

    @property
    def writes(self) -> int:
        """Requests that change an object, or try to."""
        changes = ("patch", "create")
        return sum(n for what, n in self.requests.items() if what.startswith(changes))


async def steady(nodes: int, features: ApiFeatures = ALL, *, dra: bool = False) -> Outcome:
    """An hour in which nothing happens, beginning an hour after the start."""
    server, known = Server(), await states()
    fleet = Fleet(nodes, server, features, dra=dra)

    async def from_here() -> None:
        await asyncio.sleep(HOUR)
        server.forget()

    await fleet.run(2 * HOUR, known.healthy, _START, from_here())
    return _outcome(fleet, HOUR)


async def flapping(
    nodes: int, share: float, *, all_devices: bool, period: float, dra: bool = False
) -> Outcome:
    """An hour in which one device, or each, of some nodes fails and recovers every `period`
    seconds. A fault that all nodes share is one of driver or firmware."""
    server, known = Server(), await states()
    fleet = Fleet(nodes, server, ALL, dra=dra)
    unhealthy = fleet.nodes[: round(nodes * share)]

    failed = known.all_unhealthy if all_devices else known.one_unhealthy

    async def flap() -> None:
        await asyncio.sleep(_START)
        server.forget()
        while True:
            for state in (failed, known.healthy):
                for node in unhealthy:
                    node.state.set(state)
                await asyncio.sleep(period)

    await fleet.run(_START + HOUR, known.healthy, 60.0, flap())
    return _outcome(fleet, HOUR)


async def start_up(
    nodes: int, spread: float, server: Server | None = None, *, dra: bool = False
) -> Outcome:
    """Every daemon starts within so many seconds, as after a power cut."""
    server, known = server or Server(), await states()
    fleet = Fleet(nodes, server, ALL, dra=dra)
    seconds = spread + 290.0  # before the condition's first heartbeat is due
    await fleet.run(seconds, known.healthy, spread)
    writes = ("patch slice",) if dra else ("patch node", "patch node status")
    return _outcome(fleet, seconds, 0.0, *writes)


async def outage(nodes: int, down: float) -> Outcome:
    """The API server is away for `down` seconds, and a device fails on every node meanwhile."""
    server, known = Server(), await states()
    fleet = Fleet(nodes, server, ALL)
    back = _START + down

    async def go() -> None:
        await asyncio.sleep(_START)
        server.up = False
        await asyncio.sleep(10.0)
        for node in fleet.nodes:
            node.state.set(known.one_unhealthy)
        await asyncio.sleep(down - 10.0)
        server.forget()
        server.up = True

    await fleet.run(back + 900.0, known.healthy, 60.0, go())
    return _outcome(fleet, 900.0, back, "patch node status", "create event")


def _outcome(fleet: Fleet, seconds: float, since: float = 0.0, *writes: str) -> Outcome:
    """`writes` are those that each node must have made."""
    server = fleet.server
    written = [server.first_write.get(what, {}) for what in writes]
    done = sorted(
        max(at[node.name] for at in written) - since
        for node in fleet.nodes
        if writes and all(node.name in at for at in written)
    )
    return Outcome(
        len(fleet.nodes),
        seconds,
        dict(sorted(server.requests.items())),
        max(server.per_second.values(), default=0),
        max(server.handshakes.values(), default=0),
        server.refused,
        done[len(fleet.nodes) // 2] if len(done) > len(fleet.nodes) // 2 else None,
        done[-1] if len(done) == len(fleet.nodes) else None,
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """`at_most` nodes are simulated of it; rates are per node, and scaled to the fleet."""

    name: str
    play: Callable[[int], Awaitable[Outcome]]
    at_most: int = 1_000_000


SCENARIOS = (
    Scenario("steady", steady, at_most=1000),
    Scenario("steady, without the condition", partial(steady, features=QUIET), at_most=1000),
    Scenario(
        "one device flaps on 1 % of the nodes",
        partial(flapping, share=0.01, all_devices=False, period=10.0),
        at_most=1000,
    ),
    Scenario(
        "one device flaps on every node",
        partial(flapping, share=1.0, all_devices=False, period=10.0),
        at_most=200,
    ),
    Scenario(
        "every device flaps on every node",
        partial(flapping, share=1.0, all_devices=True, period=10.0),
        at_most=200,
    ),
    Scenario("start-up within 60 s", partial(start_up, spread=60.0)),
    Scenario("start-up at once", partial(start_up, spread=0.0)),
    Scenario(
        "start-up at once, small server",
        lambda nodes: start_up(nodes, 0.0, Server(at_once=20, service=0.02, queue=500)),
    ),
    Scenario("DRA alone: steady", partial(steady, dra=True), at_most=1000),
    Scenario(
        "DRA alone: every device flaps on every node",
        partial(flapping, share=1.0, all_devices=True, period=10.0, dra=True),
        at_most=200,
    ),
    Scenario("DRA alone: start-up at once", partial(start_up, spread=0.0, dra=True)),
    Scenario("API server away for 10 min, a fault on every node", partial(outage, down=600.0)),
)
