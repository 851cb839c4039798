"""Wheels: building the project's own, with locked tools, and what any of them says of itself."""

from __future__ import annotations

import email
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import Message
from pathlib import Path

from .licences import of_python

LOCK_FILE = "requirements-build.lock"

_EARLIEST = 315532800  # wheels are zip files and know no time before 1980


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel; `name` is in the form of locks and package URLs, `sha256` is the archive's."""

    name: str
    version: str
    summary: str
    license: str
    sha256: str
    path: Path


def make_builder(source: Path, folder: Path) -> Path:
    """Make an environment with the project's locked build back end; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    run_pip(python, ["install", "-q", "--require-hashes", "-r", str(source / LOCK_FILE)])
    return python


def build_wheel(python: Path, source: Path, target: Path, time: datetime) -> Path:
    """Build the project's wheel with a Python's own setuptools; return its place.

    `source` is a copy (`source.copy`) or a source distribution, `time` that of the files in
    the wheel. No package index is asked.
    """
    options = ("--no-deps", "--no-index", "--no-build-isolation")
    run_pip(python, ["wheel", "-q", *options, "-w", str(target), str(source)], build_times(time))
    return next(target.glob("*.whl"))


def build_times(time: datetime) -> dict[str, str]:
    """Return the variables that make a back end's output depend on its input alone."""
    return {
        "SOURCE_DATE_EPOCH": str(max(int(time.timestamp()), _EARLIEST)),
        "PYTHONHASHSEED": "0",
    }


def run_pip(python: Path, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> None:
    """Run a Python's pip."""
    subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *arguments],
        check=True,
        env={**os.environ, **(more or {})},
        stdin=subprocess.DEVNULL,
        umask=0o022,  # wheels have the modes of files that are made on the way, too
    )


def read_wheel(path: Path) -> Wheel:
    """Return what a wheel says about itself."""
    metadata = _metadata(path)
    return Wheel(
        name=re.sub(r"[-_.]+", "-", str(metadata["Name"])).lower(),
        version=str(metadata["Version"]),
        summary=str(metadata.get("Summary", "")),
        license=of_python(metadata),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=path,
    )


def metadata_file(wheel: Path, name: str) -> str:
    """Return a file of a wheel's `.dist-info` folder."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(member).decode()


def _metadata(wheel: Path) -> Message:
    return email.message_from_string(metadata_file(wheel, "METADATA"))
