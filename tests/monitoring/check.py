"""What `run` does."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import dashboard, picture
from .prometheus import MONITORING, ROOT, Prometheus, free_port, program, running, wait_until

#: Alerts that the story of `stage` must raise, firing or pending, at its end.
EXPECTED = {
    "SPUUnhealthy",
    "SPUUnhealthyInUse",
    "SPULinkDegraded",
    "SPUMemoryErrorsGrowing",
    "SPUPCIeErrorsGrowing",
    "SPUAllocationsRefused",
}
#: Queries that are empty on this stage for a good reason.
MAY_BE_EMPTY: frozenset[str] = frozenset()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Rules and dashboard against a real Prometheus.")
    parser.add_argument("--seconds", type=float, default=40, help="how long the story is")
    parser.add_argument("--picture", type=Path, help="draw the dashboard's panels into this file")
    arguments = parser.parse_args(words)
    promtool = program("promtool")
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=MONITORING, check=False)
        if done.returncode:
            return done.returncode
    failures = [f"dashboard: {fault}" for fault in dashboard.faults(dashboard.load())]
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="spu-monitoring-") as name,
        stage(port, arguments.seconds),
        running(Path(name), port) as prometheus,
    ):
        began = time.time()
        failures += lint(promtool, port)
        timeouts = arguments.seconds + 30
        wait_until(lambda: alerts(prometheus) >= EXPECTED, "end of the story", timeouts)
        failures += ask(prometheus, began)
        if arguments.picture is not None:
            picture.draw(prometheus, began, time.time(), arguments.picture)
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


@contextmanager
def stage(port: int, seconds: float) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.monitoring.stage", str(port), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield
        if process.poll() is not None:
            raise SystemExit("the stage ended by itself")
    finally:
        process.terminate()
        process.wait(30)


def lint(promtool: Path, port: int) -> Iterator[str]:
    """What promtool has to say of a scrape, in either format."""
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    if done.returncode or done.stdout or done.stderr:
        yield f"promtool: {(done.stdout + done.stderr).decode()}"


def alerts(prometheus: Prometheus) -> set[str]:
    return {series["metric"]["alertname"] for series in prometheus.query("ALERTS")}


def ask(prometheus: Prometheus, began: float) -> Iterator[str]:
    """Every query of the dashboard has to have had a result within the story, and no rule
    may have failed."""
    for query in dashboard.queries(dashboard.load()):
        found = prometheus.over_time(query.expression, began, time.time(), 1.0)
        print(f"{len(found):3} series  {query.panel}: {query.legend or query.expression}")
        if not found and query.panel not in MAY_BE_EMPTY:
            yield f"{query.panel}: nothing for {query.expression}"
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                yield f"rule {rule['name']}: {rule.get('lastError', rule['health'])}"
    for record in ("utilization:ratio", "memory_used:bytes", "power:watts"):
        if not prometheus.query(f"container:moffett_spu_{record}"):
            yield f"no container:moffett_spu_{record}"
    (target,) = prometheus.get("targets")["activeTargets"]
    took = prometheus.query("max_over_time(scrape_duration_seconds[1m])")[0]["value"][1]
    print(f"alerts: {', '.join(sorted(alerts(prometheus)))}; slowest scrape {took} s")
    if target["lastError"]:
        yield f"scrape: {target['lastError']}"
