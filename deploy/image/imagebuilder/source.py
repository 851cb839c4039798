"""The project's source: its commit, its time, and a copy that says both.

Version control is asked here and nowhere else: what is built carries the answer along in
`moffett_device_plugin/_build.py`, which `--version` reads.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# What the wheel is made of; the copy for a source distribution has everything.
WHEEL_SOURCES = ("LICENSE", "MANIFEST.in", "NOTICE", "README.md", "pyproject.toml", "src")

_LEFT_BEHIND = (".*", "*.egg-info", "*.pyc", "__pycache__")
# What is made here, and what setuptools adds to a source distribution.
_MADE = ("build", "dist", "PKG-INFO", "setup.cfg")
_BUILD_FILE = "src/moffett_device_plugin/_build.py"
_BUILD_FACTS = '''\
"""Which source this is; written by the build."""

COMMIT = "{commit}"
DATE = "{date:%Y-%m-%dT%H:%M:%SZ}"
'''


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the source comes from: a commit ("" if unknown), and a time in place of now."""

    commit: str
    created: datetime


def origin(source: Path) -> Origin:
    """Ask the environment, then version control, then what an earlier build wrote down.

    `SOURCE_REVISION` is the commit, else the one that is checked out, with `-dirty` if
    files differ from it. `SOURCE_DATE_EPOCH` is the time, else the commit's, else 1970.
    A source distribution has no repository, but the commit and time it was made of.
    """
    commit, epoch = _written_down(source / _BUILD_FILE)
    if (source / ".git").exists():
        commit = _git(source, "rev-parse", "HEAD")
        epoch = _git(source, "log", "-1", "--format=%ct")
        if commit and _git(source, "status", "--porcelain"):
            commit += "-dirty"
    commit = os.environ.get("SOURCE_REVISION") or commit
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or epoch
    return Origin(commit, datetime.fromtimestamp(int(epoch or 0), UTC))


def copy(source: Path, target: Path, of: Origin, names: Sequence[str] | None = None) -> None:
    """Copy the source, or those files and folders of it, and write its origin down.

    Build back ends leave their own folders where they build, so they get a copy.
    """
    target.mkdir(parents=True)
    left_behind = shutil.ignore_patterns(*_LEFT_BEHIND)
    for path in sorted(source.iterdir()):
        name = path.name
        wanted = name in names if names else name not in _MADE
        if not wanted or left_behind(str(source), [name]):
            continue
        if not path.is_dir():
            _copy_file(path, target / name)
        else:
            inside = target / name
            shutil.copytree(
                path, inside, ignore=left_behind, symlinks=True, copy_function=_copy_file
            )
    if of.commit:
        facts = _BUILD_FACTS.format(commit=of.commit, date=of.created)
        (target / _BUILD_FILE).write_text(facts)


def _copy_file(source: str | Path, target: str | Path) -> str | Path:
    """Copy a file with the mode that git would give it: umasks differ, and wheels have modes."""
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if Path(source).stat().st_mode & 0o100 else 0o644)
    return target


def _written_down(file: Path) -> tuple[str, str]:
    """Return the commit and the Unix time of a `_build.py`, or two empty strings."""
    facts = dict(
        re.findall(r'^([A-Z]+) = "(.*)"$', file.read_text() if file.exists() else "", re.M)
    )
    if not facts:
        return "", ""
    return facts["COMMIT"], str(int(datetime.fromisoformat(facts["DATE"]).timestamp()))


def _git(source: Path, *arguments: str) -> str:
    """Return what git prints, or nothing without git."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(
        ["git", "-C", str(source), *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout.strip()
