"""The image's second layer: the project's wheel, its locked dependencies and a launcher.

Wheels are for the image's Python, whatever Python builds them; dependencies are installed
only with the hashes of the lock file.
"""

from __future__ import annotations

import configparser
import email
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import base

PROGRAM = "moffett-device-plugin"
LOCK_FILE = "requirements.lock"
BUILD_CONSTRAINTS = Path(__file__).resolve().parents[1] / "build-constraints.txt"
SITE = f"usr/lib/{PROGRAM}"

# Of a wheel's metadata these say how it was installed, not what it is.
_INSTALLATION_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json")

# Colouring of source code in 500 languages, which `rich` could do but the plugin never asks
# for (half of all the dependencies' size), and protobuf's own test helpers.
_UNUSED = ("pygments/lexers/[!_]*.py", "google/protobuf/internal/testing_*.py", "**/*.pyi")
_USED = ("python.py", "special.py")

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
class Metadata:
    """What the project's wheel says about itself."""

    version: str
    summary: str
    license: str
    urls: dict[str, str]


def install(source: Path, root: Path, work: Path) -> Metadata:
    """Install the project and its dependencies into an image root that has Python."""
    work.mkdir(parents=True, exist_ok=True)
    pip = _make_pip(work / "builder")
    wheel = _build_wheel(pip, source, work)
    site = root / SITE
    _install_wheels(pip, site, ["--require-hashes", "-r", str(source / LOCK_FILE)])
    _install_wheels(pip, site, ["--no-index", str(wheel)])
    shutil.rmtree(site / "bin", ignore_errors=True)
    for metadata in site.glob("*.dist-info"):
        for name in _INSTALLATION_RECORDS:
            (metadata / name).unlink(missing_ok=True)
    for pattern in _UNUSED:
        for path in site.glob(pattern):
            if path.name not in _USED:
                path.unlink()
    launcher = root / "usr/bin" / PROGRAM
    launcher.write_text(_launcher(wheel))
    launcher.chmod(0o755)
    base.compile_python(root, [f"/{SITE}"])
    return _metadata(wheel)


def check(root: Path) -> None:
    """Import every module of the project inside the root: nothing it needs was left out."""
    program = (
        "import importlib, pkgutil, sys; "
        f"sys.path.append('/{SITE}'); "
        "package = importlib.import_module('moffett_device_plugin'); "
        "names = [m.name for m in pkgutil.walk_packages("
        "package.__path__, 'moffett_device_plugin.')]; "
        "[importlib.import_module(n) for n in names if not n.endswith('.__main__')]; "
    )
    base.run_in(root, [f"/usr/bin/{base.PYTHON}", "-ISB", "-c", program])
    base.run_in(root, [f"/usr/bin/{PROGRAM}", "--help"])


def _make_pip(folder: Path) -> list[str]:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]


def _build_wheel(pip: Sequence[str], source: Path, work: Path) -> Path:
    wheels = work / "wheels"
    # From a copy, as build back ends leave their own folders in the source tree.
    copy = work / "source"
    ignored = shutil.ignore_patterns(".git", "dist", "build", "*.egg-info", ".venv", "__pycache__")
    shutil.copytree(source, copy, ignore=ignored, symlinks=True)
    _run_pip([*pip, "wheel", "-q", "--no-deps", "-w", str(wheels), str(copy)])
    return next(wheels.glob("*.whl"))


def _install_wheels(pip: Sequence[str], site: Path, arguments: Sequence[str]) -> None:
    machine = platform.machine()
    platforms = (f"manylinux_2_28_{machine}", f"manylinux_2_17_{machine}")
    _run_pip(
        [*pip, "install", "-q", "--no-deps", "--no-compile", "--target", str(site), "--upgrade"]
        + ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]
        + [f"--platform={tag}" for tag in (*platforms, f"manylinux2014_{machine}")]
        + list(arguments)
    )


def _run_pip(command: Sequence[str]) -> None:
    # Wheels are zip files and know no time before 1980.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}
    # The build back end is pinned too: it writes part of what ends up in the image.
    environment["PIP_CONSTRAINT"] = str(BUILD_CONSTRAINTS)
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)


def _read_metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(member).decode()


def _launcher(wheel: Path) -> str:
    """Return the start script for the console script that the wheel declares."""
    entry_points = configparser.ConfigParser()
    entry_points.read_string(_read_metadata(wheel, "entry_points.txt"))
    module, _, function = entry_points["console_scripts"][PROGRAM].partition(":")
    return _LAUNCHER.format(python=base.PYTHON, site=SITE, module=module, function=function)


def _metadata(wheel: Path) -> Metadata:
    fields = email.message_from_string(_read_metadata(wheel, "METADATA"))
    urls = (str(line).partition(", ") for line in fields.get_all("Project-URL", []))
    return Metadata(
        version=str(fields["Version"]),
        summary=str(fields.get("Summary", "")),
        license=str(fields.get("License-Expression") or fields.get("License") or ""),
        urls={label: url for label, _, url in urls},
    )
