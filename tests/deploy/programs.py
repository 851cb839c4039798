"""helm, kubeconform and kustomize, built from their Go modules into a cache.

`programs/NAME` is a Go module without a line of Go: its go.mod names upstream's program as
a tool, and its go.sum pins every byte of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("helm", "kubeconform", "kustomize")


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moffett-device-plugin"


def ensure(name: str) -> Path:
    """The program, built if the cache does not have it (minutes, once). Raises
    CalledProcessError with the compiler's words, FileNotFoundError without Go."""
    module = HERE / "programs" / name
    pins = (module / "go.mod").read_bytes() + (module / "go.sum").read_bytes()
    program = cache_folder() / f"{name}-{hashlib.sha256(pins).hexdigest()[:12]}" / name
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        # Built beside its place and moved there: half a program is never found.
        with tempfile.TemporaryDirectory(dir=program.parent) as work:
            go("build", "-trimpath", "-ldflags=-s -w", f"-o={work}/", "tool", cwd=module)
            shutil.move(Path(work) / name, program)
    return program


def go(*words: str, cwd: Path, more: Mapping[str, str] | None = None) -> str:
    """Runs Go by what go.sum says, without fetching another Go; `more` is of its environment."""
    settings = {
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    environment = {**os.environ, **settings, "PWD": str(cwd), **(more or {})}
    command = ["go", *words]
    return subprocess.run(
        command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def version(name: str) -> str:
    """What the program's go.mod pins, such as `v3.22.0`."""
    text = (HERE / "programs" / name / "go.mod").read_text()
    tool = re.search(r"^tool (\S+)$", text, re.MULTILINE)
    assert tool is not None
    module = max(
        re.findall(r"^(?:\t|require )(\S+) (v\S+)", text, re.MULTILINE),
        key=lambda found: len(found[0]) if tool[1].startswith(found[0]) else 0,
    )
    return str(module[1])


if __name__ == "__main__":
    import sys

    # For whoever needs one of them in another environment: its path.
    print(ensure(sys.argv[1]))
