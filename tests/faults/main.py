"""What `run` does."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from . import namespaces, report
from .actions import ACTIONS
from .campaign import Campaign, Record, Step, guarded
from .invariants import InvariantError
from .mutants import MUTANTS
from .systematic import every_name, every_point
from .world import World


def main(words: list[str]) -> int:
    p = argparse.ArgumentParser(prog="tests/faults/run", description="The fault campaign.")
    p.add_argument("--seed", type=int, help="of all choices (default: a random one, printed)")
    p.add_argument("--seconds", type=float, default=75, help="of the random part")
    p.add_argument("--only", metavar="NAME", help="only this fault, repeatedly")
    p.add_argument("--no-systematic", action="store_true", help="the random part alone")
    p.add_argument("--mutant", choices=sorted(MUTANTS), help="a defect, which must be found")
    p.add_argument("--story", action="store_true", help="print every step")
    p.add_argument("--log", type=Path, metavar="FILE", help="write the daemons' logs there")
    p.add_argument("--list", action="store_true", help="print the faults")
    arguments = p.parse_args(words)
    if arguments.list:
        print("\n".join(sorted(ACTIONS)))
        return 0
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    if arguments.only and arguments.only not in ACTIONS:
        p.error(f"no such fault: {arguments.only}; see --list")
    return asyncio.run(_campaign(arguments, seed))


async def _campaign(arguments: argparse.Namespace, seed: int) -> int:
    again = f"tests/faults/run --seed {seed} --seconds {arguments.seconds:g}"
    if arguments.no_systematic:
        again += " --no-systematic"
    if arguments.only:
        again += f" --only '{arguments.only}'"
    if arguments.mutant:
        again += f" --mutant {arguments.mutant}"
    print(f"seed {seed}", flush=True)
    if not namespaces.own():
        print("left out, as this machine allows no user namespace: full disks, no inotify")
    record = Record()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spu-") as name:
        async with asyncio.TaskGroup() as tasks:
            world = World(Path(name), tasks, arguments.mutant or "")
            failed = None
            try:
                await world.kubelet.start()
                await world.start_plugin()
                campaign = Campaign(world, record)
                work: list[Callable[[], Awaitable[None]]] = [campaign.begin]
                if arguments.only:
                    work.append(partial(_only, campaign, arguments.only, seed, arguments.seconds))
                else:
                    if not arguments.no_systematic:
                        work += [partial(every_point, campaign), partial(every_name, campaign)]
                    work.append(partial(campaign.run, seed, arguments.seconds))
                await guarded(campaign, work)
            except InvariantError as error:
                failed = report.failure(error, world, record, again)
            finally:
                await world.close()
    if arguments.log:
        lines = (json.dumps(line, default=str) + "\n" for line in world.log_lines)
        arguments.log.write_text("".join(lines))
    if arguments.story:
        print("\n".join(record.story))
    print(report.table(record))
    print(report.summary(record) + f"; {time.monotonic() - began:.0f} s")
    if failed is not None:
        print(failed)
        return 1
    print(f"passed, seed {seed}")
    return 0


async def _only(campaign: Campaign, name: str, seed: int, seconds: float) -> None:
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await campaign.step(Step(name, 0.0, chance.getrandbits(32)))
        await campaign.settle()
        await asyncio.sleep(chance.choice((0.0, 0.3, 2.0)))
        for left in list(campaign.world.open):
            await campaign.repair(left)
        await campaign.settle()
        await campaign.measure()
