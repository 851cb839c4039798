"""The project's source: its commit, its time, and a copy that says both.

Version control is asked here and nowhere else: what is built carries the answer along in
`moffett_device_plugin/_build.py`, which `--version` reads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# What the wheel is made of; the copy for a source distribution has everything.
WHEEL_SOURCES = ("LICENSE", "MANIFEST.in", "NOTICE", "README.md", "pyproject.toml", "src")

_LEFT_BEHIND = (".*", "*.egg-info", "*.pyc", "__pycache__")
_BUILD_FACTS = '''\
"""Which source this is; written by the build."""

COMMIT = "{commit}"
DATE = "{date:%Y-%m-%d}"
'''


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the source comes from: a commit ("" if unknown), and a time in place of now."""

    commit: str
    created: datetime


def origin(source: Path) -> Origin:
    """Ask the environment, then version control.

    `SOURCE_REVISION` is the commit, else the one that is checked out, with `-dirty` if
    files differ from it. `SOURCE_DATE_EPOCH` is the time, else the commit's, else 1970.
    """
    commit = os.environ.get("SOURCE_REVISION", "")
    if not commit:
        commit = _git(source, "rev-parse", "HEAD")
        if commit and _git(source, "status", "--porcelain"):
            commit += "-dirty"
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git(source, "log", "-1", "--format=%ct")
    return Origin(commit, datetime.fromtimestamp(int(epoch or 0), UTC))


def copy(source: Path, target: Path, of: Origin, names: Sequence[str] | None = None) -> None:
    """Copy the source, or those files and folders of it, and write its origin down.

    Build back ends leave their own folders where they build, so they get a copy.
    """
    target.mkdir(parents=True)
    left_behind = shutil.ignore_patterns(*_LEFT_BEHIND)
    outputs = ("build", "dist")
    for path in sorted(source.iterdir()):
        name = path.name
        if name in (names or (name,)) and not left_behind(str(source), [name]):
            if not path.is_dir():
                shutil.copy2(path, target / name)
            elif name not in outputs:
                shutil.copytree(path, target / name, ignore=left_behind, symlinks=True)
    if of.commit:
        facts = _BUILD_FACTS.format(commit=of.commit, date=of.created)
        (target / "src" / "moffett_device_plugin" / "_build.py").write_text(facts)


def _git(source: Path, *arguments: str) -> str:
    """Return what git prints, or nothing outside a repository."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(
        ["git", "-C", str(source), *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout.strip()
