"""What `run` does: programs, schemas, tests, each with its time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import generate, programs, schemas
from .chart import ROOT


@contextmanager
def stage(name: str) -> Iterator[None]:
    print(f"== {name}", flush=True)
    start = time.monotonic()
    yield
    print(f"== {name}: {time.monotonic() - start:.1f} s", flush=True)


def main(words: list[str]) -> int:
    with stage("programs"):
        for name in programs.NAMES:
            programs.ensure(name)
            print(f"{name} {programs.version(name)}")
    if words == ["--write"]:
        for path in generate.write():
            print(f"wrote {path.relative_to(ROOT)}")
        return 0
    with stage("schemas"):
        schemas.ensure()
        print("Kubernetes " + ", ".join(schemas.RELEASES))
    with stage("tests"):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/deploy", *words]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
