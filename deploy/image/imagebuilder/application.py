"""The image's second layer: the project's wheel, its locked dependencies and a launcher.

Wheels are for the image's Python, whatever Python builds them; dependencies are installed
only with the hashes of the lock file.
"""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path

from . import source as sources
from .architecture import Architecture
from .base import make_data
from .contents import PYTHON
from .inside import Interpreter
from .wheels import Wheel, build_wheel, make_builder, metadata_file, read_wheel, run_pip

PROGRAM = "moffett-device-plugin"
LOCK_FILE = "requirements.lock"
SITE = f"usr/lib/{PROGRAM}"

# Dependencies of `rich` that nothing here asks it for: the colouring of source code, and
# Markdown. They are most of all the dependencies' size.
LEFT_OUT = ("markdown-it-py", "mdurl", "pygments")

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


def install(
    source: Path, origin: sources.Origin, root: Path, architecture: Architecture, work: Path
) -> tuple[Wheel, ...]:
    """Install the project (the first wheel) and its dependencies into an image's root."""
    work.mkdir(parents=True, exist_ok=True)
    python = make_builder(source, work / "builder")
    sources.copy(source, work / "source", origin, sources.WHEEL_SOURCES)
    own = build_wheel(python, work / "source", work / "wheels", origin.created)
    locked = work / "locked"
    wanted = ["--require-hashes", "-r", str(source / LOCK_FILE)]
    run_pip(python, ["download", "-q", "-d", str(locked), *_for_image(architecture), *wanted])
    wheels = [read_wheel(own)]
    wheels += [
        wheel for wheel in map(read_wheel, sorted(locked.iterdir())) if wheel.name not in LEFT_OUT
    ]
    site = root / SITE
    run_pip(
        python,
        ["install", "-q", "--no-index", "--no-compile", "--target", str(site)]
        + _for_image(architecture)
        + [str(wheel.path) for wheel in wheels],
    )
    _prune(site)
    make_data(site)
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


def _for_image(architecture: Architecture) -> list[str]:
    platforms = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    return [
        *("--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=3.11"),
        *(f"--platform={tag}_{architecture.machine}" for tag in platforms),
    ]


def _launcher(wheel: Path) -> str:
    """Return the start script for the console script that the wheel declares."""
    entry_points = configparser.ConfigParser()
    entry_points.read_string(metadata_file(wheel, "entry_points.txt"))
    module, _, function = entry_points["console_scripts"][PROGRAM].partition(":")
    return _LAUNCHER.format(python=PYTHON, site=SITE, module=module, function=function)
