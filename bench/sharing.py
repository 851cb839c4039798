"""`python -m bench.sharing`: what replicas cost: 24 devices, each advertised 1 to 100 times."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from moffett_device_plugin.allocation.allocator import PoolAllocator
from moffett_device_plugin.deviceplugin.service import response_of
from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus, observe_smi
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import Faults, build, bus_scan, smi_report
from moffett_device_plugin.resources.pools import Resource, Sharing, build_pools
from moffett_device_plugin.runtime.watchable import Watchable

CARDS = ("S30",) * 8
REPLICAS = (1, 2, 10, 100)


def state() -> NodeState:
    layout, faults = build(CARDS), Faults()
    scanned = observe_bus(Snapshot(), bus_scan(layout, faults))
    snapshot = observe_smi(scanned, smi_report(layout, faults), scanned.scan)
    return NodeState(
        snapshot, evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses, settled=True
    )


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """The median; the first round, which finds nothing in the caches, is left out."""
    times: list[float] = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times[1:]) * 1e3


def row(node: NodeState, replicas: int, rounds: int) -> list[str]:
    resource = Resource("moffett.ai/spu.shared", sharing=Sharing(replicas))
    ((pool,), _) = build_pools(node, (resource,))
    allocator = PoolAllocator(Watchable(node), lambda: pool)
    devices = pool.advertised()
    ids = [device.id for device in devices]
    message = response_of(devices)
    cells = [
        milliseconds(lambda: build_pools(node, (resource,)), rounds),
        milliseconds(lambda: response_of(pool.advertised()), rounds),
        *(milliseconds(lambda n=n: allocator.prefer(ids, [], n), rounds) for n in (1, 2, 12)),  # type: ignore[misc]
        milliseconds(lambda: allocator.allocate(ids[:1]), rounds),
    ]
    return [str(len(ids)), f"{len(message) / 1024:.1f}", *(f"{cell:.2f}" for cell in cells)]


def table(rounds: int) -> str:
    titles = [
        "replicas", "advertised", "list, KiB", "pools, ms", "list, ms",
        "prefer 1, ms", "prefer 2, ms", "prefer 12, ms", "allocate, ms",
    ]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + " ---: |" * len(titles)]
    node = state()
    for replicas in REPLICAS:
        lines.append("| " + " | ".join([str(replicas), *row(node, replicas, rounds)]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.sharing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    print(table(parser.parse_args().rounds))
