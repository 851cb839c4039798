"""`python -m bench.scale`: the load of a fleet on its API server, and of a daemon on its node.

Needs no network, privileges or cluster. See docs/scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time

from . import virtual
from .memory import FEATURES, resident
from .scenarios import HOUR, SCENARIOS, Outcome

_TITLES = (
    "situation", "simulated nodes", "writes /h and node", "writes /s, fleet",
    "busiest second, requests", "TLS handshakes", "429", "half written after", "all written after",
)  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    p.add_argument("--nodes", type=int, default=5000, help="of the fleet")
    p.add_argument("--only", default="", metavar="TEXT", help="only situations with this text")
    p.add_argument("--no-memory", action="store_true", help="start no real daemon")
    arguments = p.parse_args()
    logging.disable(logging.CRITICAL)
    print(_row(_TITLES))
    print(_row([":--", *["--:"] * (len(_TITLES) - 1)]))
    began = time.perf_counter()
    for scenario in SCENARIOS:
        if arguments.only in scenario.name:
            nodes = min(arguments.nodes, scenario.at_most)
            outcome = virtual.run(_outcome_of(scenario.play(nodes)))
            print(_row(_cells(scenario.name, outcome, arguments.nodes)), flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s in total\n")
    if not arguments.no_memory:
        print(_row(("one daemon with 24 devices", "RSS, MiB", "private dirty, MiB")))
        print(_row((":--", "--:", "--:")))
        for name, flags in FEATURES.items():
            memory = asyncio.run(resident(flags))
            print(_row((name, f"{memory.rss:.1f}", f"{memory.private_dirty:.1f}")), flush=True)


async def _outcome_of(outcome: object) -> Outcome:
    return await outcome  # type: ignore[misc,no-any-return]


def _cells(name: str, of: Outcome, fleet: int) -> list[str]:
    scale = fleet / of.nodes
    mark = "" if scale == 1 else "≈ "
    return [
        name,
        str(of.nodes),
        f"{of.writes / of.nodes * HOUR / of.seconds:.1f}",
        f"{mark}{of.writes * scale / of.seconds:.1f}",
        f"{mark}{of.peak * scale:.0f}",
        f"{mark}{of.peak_handshakes * scale:.0f}",
        str(of.refused),
        "" if of.half_after is None else f"{of.half_after:.1f} s",
        "" if of.all_after is None else f"{of.all_after:.1f} s",
    ]


def _row(cells: object) -> str:
    return f"| {' | '.join(cells)} |"  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
