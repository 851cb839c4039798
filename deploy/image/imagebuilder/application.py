"""The image's second layer: the project's wheel, its locked dependencies and a launcher.

Wheels are for the image's Python, whatever Python builds them; dependencies are installed
only with the hashes of the lock file.
"""

from __future__ import annotations

import configparser
import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from . import source as sources
from .architecture import Architecture
from .contents import PYTHON
from .inside import Interpreter
from .licences import of_python

PROGRAM = "moffett-device-plugin"
LOCK_FILE = "requirements.lock"
BUILD_CONSTRAINTS = Path(__file__).resolve().parents[1] / "build-constraints.txt"
SITE = f"usr/lib/{PROGRAM}"

# Dependencies of `rich` that nothing here asks it for: the colouring of source code, and
# Markdown. They are most of all the dependencies' size.
_LEFT_OUT = ("markdown-it-py", "mdurl", "pygments")

# Of the others: type stubs, protobuf's helpers for its own tests, and YAML's C reader (the
# Python one tells lines and columns, and a configuration is short).
_UNUSED = (
    "**/*.pyi",
    "google/protobuf/internal/message_benchmark.py",
    "google/protobuf/internal/testing_*.py",
    "yaml/_yaml.*",
    "yaml/cyaml.py",
    "_yaml",
)
# Packages of which only these modules are imported (`metrics/library.py`).
_USED_OF = {
    "prometheus_client": (
        "__init__.py",
        "metrics_core.py",
        "process_collector.py",
        "registry.py",
        "samples.py",
        "utils.py",
        "validation.py",
    )
}

# Of a wheel's metadata these say how it was installed, not what it is.
_INSTALLATION_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json")

# -I: no PYTHON* variables, no user's or current folder's modules. -S: no site, so no search
# for .pth files at start. -B: the image's own byte code is all there is.
_LAUNCHER = """\
#!/usr/bin/{python} -ISB
import sys

sys.path.append("/{site}")

from {module} import {function}

sys.exit({function}())
"""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel in the image; `sha256` is its archive's."""

    name: str
    version: str
    summary: str
    license: str
    sha256: str
    path: Path


def install(
    source: Path, origin: sources.Origin, root: Path, architecture: Architecture, work: Path
) -> tuple[Wheel, ...]:
    """Install the project (the first wheel) and its dependencies into an image's root."""
    work.mkdir(parents=True, exist_ok=True)
    pip = _make_pip(work / "builder")
    sources.copy(source, work / "source", origin, sources.WHEEL_SOURCES)
    own = build_wheel(pip, work / "source", work / "wheels")
    locked = work / "locked"
    wanted = ["--require-hashes", "-r", str(source / LOCK_FILE)]
    _run_pip([*pip, "download", "-q", "-d", str(locked), *_for_image(architecture), *wanted])
    wheels = [read_wheel(own)]
    wheels += [
        wheel for wheel in map(read_wheel, sorted(locked.iterdir())) if wheel.name not in _LEFT_OUT
    ]
    site = root / SITE
    _run_pip(
        [*pip, "install", "-q", "--no-index", "--no-compile", "--target", str(site)]
        + _for_image(architecture)
        + [str(wheel.path) for wheel in wheels]
    )
    _prune(site)
    launcher = root / "usr/bin" / PROGRAM
    launcher.write_text(_launcher(own))
    launcher.chmod(0o755)
    return tuple(wheels)


def compile_modules(root: Path, interpreter: Interpreter) -> None:
    """Byte-compile what `install` has put there."""
    interpreter.compile(root, SITE)


def _prune(site: Path) -> None:
    shutil.rmtree(site / "bin", ignore_errors=True)
    for metadata in site.glob("*.dist-info"):
        for name in _INSTALLATION_RECORDS:
            (metadata / name).unlink(missing_ok=True)
    for pattern in _UNUSED:
        for path in sorted(site.glob(pattern)):
            _remove(path)
    for package, used in _USED_OF.items():
        for path in sorted((site / package).iterdir()):
            if path.name not in used:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_pip(folder: Path) -> list[str]:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]


def build_wheel(pip: Sequence[str], source: Path, target: Path) -> Path:
    """Build the project's wheel from a copy of its source and return its place."""
    _run_pip([*pip, "wheel", "-q", "--no-deps", "-w", str(target), str(source)])
    return next(target.glob("*.whl"))


def _for_image(architecture: Architecture) -> list[str]:
    platforms = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    return [
        *("--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=3.11"),
        *(f"--platform={tag}_{architecture.machine}" for tag in platforms),
    ]


def _run_pip(command: Sequence[str]) -> None:
    # Wheels are zip files and know no time before 1980.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}
    # The build back end is pinned too: it writes part of what ends up in the image.
    environment["PIP_CONSTRAINT"] = str(BUILD_CONSTRAINTS)
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)


def read_wheel(path: Path) -> Wheel:
    """Return what a wheel says about itself."""
    metadata = _metadata(path)
    return Wheel(
        # The form of names that locks and package URLs have.
        name=re.sub(r"[-_.]+", "-", str(metadata["Name"])).lower(),
        version=str(metadata["Version"]),
        summary=str(metadata.get("Summary", "")),
        license=of_python(metadata),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=path,
    )


def _metadata(wheel: Path) -> Message:
    return email.message_from_string(_member(wheel, "METADATA"))


def _member(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(member).decode()


def _launcher(wheel: Path) -> str:
    """Return the start script for the console script that the wheel declares."""
    entry_points = configparser.ConfigParser()
    entry_points.read_string(_member(wheel, "entry_points.txt"))
    module, _, function = entry_points["console_scripts"][PROGRAM].partition(":")
    return _LAUNCHER.format(python=PYTHON, site=SITE, module=module, function=function)
