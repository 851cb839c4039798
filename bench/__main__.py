"""`python -m bench`: the command line of the benchmark."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .measure import Bench, Idle, Round, TimedOutError
from .report import Result, result, table
from .spec import Plan, Plugin, Request, named

OURS = "moffett-device-plugin serve --kubelet-dir {dir}"
#: What is measured when no --plugin is given: the same product in three states.
DEFAULTS = {
    "simulated": f"{OURS} --simulate {{spec}}",
    "sysfs": f"{OURS} --host-root {{host}} --mx-smi none",
    "sysfs+mx-smi": f"{OURS} --host-root {{host}}",
}


def parser() -> argparse.ArgumentParser:
    default = Plan()
    p = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = p.add_argument
    add(
        "--plugin",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="placeholders: {dir} {devices} {spec} {host} {scratch}; see README.md",
    )
    add("--devices", default="1,24,1000", metavar="N,...", help="numbers of devices")
    add("--rounds", type=int, default=default.rounds)
    add("--allocates", type=int, default=default.allocates, help="in each round")
    add("--warm-up", type=int, default=default.warm_up, help="Allocates before those")
    add("--idle", type=float, default=default.idle, metavar="SECONDS", help="0: not at all")
    add("--timeout", type=float, default=default.timeout, metavar="SECONDS")
    add("--baseline", metavar="NAME", help="what the ratios are to; the first plugin")
    add(
        "--dir",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the kubelet directory that a plugin has built in; must not exist",
    )
    add(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="makes device {id} fail, for a plugin that does not read {host}",
    )
    add(
        "--image",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="an image archive, for its size",
    )
    add("--json", type=Path, metavar="FILE", help="also write all medians there")
    add("--work", type=Path, metavar="DIR", help="for everything temporary")
    return p


def request_of(arguments: argparse.Namespace, work: Path) -> Request:
    """Raises ValueError with a readable text."""
    commands = named(arguments.plugin, "--plugin") or DEFAULTS
    directories = named(arguments.dir, "--dir")
    faults = named(arguments.fault, "--fault")
    images = named(arguments.image, "--image")
    for name in {*directories, *faults, *images} - set(commands):
        raise ValueError(f"no plugin is named {name!r}")
    for path in directories.values():
        # A directory that exists may be a real kubelet's, and we would empty it.
        if Path(path).exists():
            raise ValueError(f"{path} exists; is there a real kubelet?")
    baseline = arguments.baseline or next(iter(commands))
    if baseline not in commands:
        raise ValueError(f"no plugin is named {baseline!r}")
    plugins = tuple(
        Plugin(
            name,
            command,
            fault=faults.get(name),
            directory=Path(directories[name]) if name in directories else None,
            image_bytes=Path(images[name]).stat().st_size if name in images else None,
        )
        for name, command in commands.items()
    )
    plan = Plan(
        arguments.rounds,
        arguments.allocates,
        arguments.warm_up,
        arguments.idle,
        timeout=arguments.timeout,
    )
    counts = tuple(int(count) for count in arguments.devices.split(","))
    return Request(plugins, counts, plan, baseline, work)


async def run(request: Request) -> list[Result]:
    """Every plugin in turn in every round, so that a slow minute slows them all."""
    bench = Bench(request.work, request.plan)
    results: list[Result] = []
    for devices in request.counts:
        rounds: dict[str, list[Round]] = {plugin.name: [] for plugin in request.plugins}
        for number in range(request.plan.rounds):
            for plugin in request.plugins:
                say(f"{devices} devices, round {number + 1}: {plugin.name}")
                try:
                    rounds[plugin.name].append(await bench.round(plugin, devices))
                except* TimedOutError as group:
                    error = group.exceptions[0]
                    say(f"  {error}\n{tail(request.work / f'{plugin.name}.log')}")
        idle: dict[str, Idle] = {}
        if request.plan.idle > 0:
            say(f"{devices} devices, idle for {request.plan.idle:.0f} s")
            idle = await bench.idle([p for p in request.plugins if rounds[p.name]], devices)
        results += [
            result(p.name, devices, rounds[p.name], idle.get(p.name), p.image_bytes)
            for p in request.plugins
        ]
    return results


def tail(path: Path, lines: int = 5) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser()
    arguments = p.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so clean up
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.work) as work:
        try:
            request = request_of(arguments, Path(work))
        except (ValueError, OSError) as error:
            p.error(str(error))
        results = asyncio.run(run(request))
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}"
    print(table(results, request.baseline))
    print(
        f"\nMedians of {request.plan.rounds} rounds; in brackets: times {request.baseline}. "
        f"{machine}, Python {platform.python_version()}."
    )
    if arguments.json:
        data = {"baseline": request.baseline, "results": [asdict(one) for one in results]}
        arguments.json.write_text(json.dumps(data, indent=2) + "\n")
    return 0 if all(one.rounds == request.plan.rounds for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
