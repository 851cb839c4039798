"""kubeconform, with the schemas of `schemas.py` and no others."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import programs, schemas


def faults(manifests: str, kubernetes: str) -> str:
    """What is wrong with the manifests on that release (a key of `schemas.RELEASES`);
    nothing if they are right. A kind without a schema is a fault."""
    folder = schemas.ensure()
    places = [folder / kubernetes, folder / "operator"]
    locations = [f"-schema-location={place}/{{{{.ResourceKind}}}}.json" for place in places]
    command: list[str | Path] = [programs.ensure("kubeconform"), "-strict", *locations, "-"]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""
