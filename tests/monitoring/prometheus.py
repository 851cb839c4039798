"""A real Prometheus for as long as it is needed: Debian's own, with a data directory,
a port and a configuration of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
PATIENCE = 60.0
_CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: moffett-device-plugin
    honor_labels: true
    static_configs:
      - targets: ["127.0.0.1:{port}"]
        labels: {{instance: node-1}}
"""


def program(name: str) -> Path:
    """`prometheus` or `promtool`: the one on the path, else Debian's package, unpacked
    into .cache and not installed."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    cache = ROOT / ".cache" / "prometheus"
    if not (cache / "usr/bin" / name).exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", "prometheus"], cwd=cache, check=True)
        for package in cache.glob("prometheus_*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, cache], check=True)
            package.unlink()
    return cache / "usr/bin" / name


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        """What the API answers to a query. Raises RuntimeError with its own words, and
        OSError while it is not up."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is starting
                raise
            raise RuntimeError(f"{json.load(error)['error']}: {parameters}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query, now."""
        return list(self.get("query", query=expression)["result"])

    def over_time(
        self, expression: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        parameters = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return list(self.get("query_range", query=expression, **parameters)["result"])


@contextmanager
def running(directory: Path, scraped: int) -> Iterator[Prometheus]:
    """Scrapes a target on port `scraped` every second and evaluates our rules."""
    port = free_port()
    configuration = directory / "prometheus.yaml"
    rules = MONITORING / "rules.yaml"
    configuration.write_text(_CONFIGURATION.format(rules=rules, port=scraped))
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "GOMAXPROCS": "1"},
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: bool(prometheus.query("up == 1")), "first scrape")
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def wait_until(condition: Callable[[], bool], what: str, timeouts: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeouts
    while True:
        try:
            if condition():
                return
        except OSError:
            pass  # not up yet
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} in {timeouts:g} s")
        time.sleep(0.1)
