"""`python -m bench.placement`: how long it takes to choose the best set of devices."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

from moffett_device_plugin.allocation.placement import place
from moffett_device_plugin.allocation.topology import Tree, build_tree
from moffett_device_plugin.commands.explanation import runner_up
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus
from moffett_device_plugin.hardware.simulation import Faults, build, bus_scan

#: Cards as real nodes have them, and the flattest tree there is: the most to merge.
LAYOUTS = ("S30", "S4")
SIZES = ("1", "2", "n/4", "n/2", "n-1")


def cards(devices: int, product: str) -> tuple[str, ...]:
    """S30 have three devices; the rest of `devices` are cards with one."""
    if product == "S4":
        return ("S4",) * devices
    return ("S30",) * (devices // 3) + ("S4",) * (devices % 3)


def node(devices: int, product: str) -> tuple[Tree, list[str]]:
    snapshot = observe_bus(Snapshot(), bus_scan(build(cards(devices, product)), Faults()))
    return build_tree(snapshot.devices), [device.id for device in snapshot.devices]


def sizes(devices: int) -> tuple[int, ...]:
    """Those of `SIZES`."""
    return 1, 2, devices // 4, devices // 2, devices - 1


def milliseconds(tree: Tree, ids: Sequence[str], size: int, rounds: int) -> float:
    """The median; the first, which finds nothing in the caches, is left out."""
    times: list[float] = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        place(tree, ids, (), size)
        times.append(time.perf_counter() - started)
    return median(times[1:]) * 1e3


def milliseconds_to_second(tree: Tree, ids: Sequence[str], size: int) -> float:
    """For the runner-up of a placement, as `explain` finds it; once, for it is slow."""
    best = place(tree, ids, (), size)
    started = time.perf_counter()
    runner_up(tree, ids, (), best)
    return (time.perf_counter() - started) * 1e3


def table(numbers: Sequence[int], rounds: int) -> str:
    """Markdown, a line for each number of devices and layout."""
    titles = ["devices", "cards", *(f"{size}, ms" for size in SIZES), "runner-up of n/2, ms"]
    lines = ["| " + " | ".join(titles) + " |", "|" + " ---: |" * len(titles)]
    for devices in numbers:
        for product in LAYOUTS:
            tree, ids = node(devices, product)
            cells = [milliseconds(tree, ids, size, rounds) for size in sizes(devices)]
            second = milliseconds_to_second(tree, ids, devices // 2)
            shown = [f"{cell:.2f}" for cell in cells] + [f"{second:.0f}"]
            lines.append("| " + " | ".join([str(devices), product, *shown]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.placement", description=__doc__)
    parser.add_argument("--devices", default="8,16,24,64,256", metavar="N,...")
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args(argv)
    numbers = [int(number) for number in arguments.devices.split(",")]
    if min(numbers) < 4 or arguments.rounds < 1:
        parser.error("at least 4 devices and 1 round")
    print(table(numbers, arguments.rounds))


if __name__ == "__main__":
    main()
