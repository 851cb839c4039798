"""A corner of the machine of our own: mounts and inotify limits that nobody else has.

The campaign starts itself again in a user and a mount namespace. It is root there, needs
no privileges for that, and what it mounts or limits goes with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_MARK = "FAULTS_OWN_NAMESPACES"
_INOTIFY = Path("/proc/sys/user")
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def enter(program: Path, words: list[str]) -> None:
    """Starts `program` again in namespaces of its own, unless it is in them already or
    the machine does not let us; then faults that need them are left out."""
    if _MARK in os.environ or shutil.which("unshare") is None:
        return
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False)
    if tried.returncode == 0:
        environment = {**os.environ, _MARK: "1"}
        argv = [*_UNSHARE, sys.executable, str(program), *words]
        os.execvpe(argv[0], argv, environment)


def own() -> bool:
    return os.environ.get(_MARK) == "1"


def mount_small(folder: Path, kib: int, inodes: int) -> bool:
    """A small file system at `folder`; False where that cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    if not own():
        return False
    options = f"size={kib}k,nr_inodes={inodes},mode=755"
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


class InotifyLimits:
    """How many watches and instances the processes in our user namespace may have."""

    def __init__(self) -> None:
        names = ("max_inotify_watches", "max_inotify_instances")
        self._usual: dict[Path, str] = {}
        if own():
            with suppress(OSError):
                self._usual = {_INOTIFY / n: (_INOTIFY / n).read_text() for n in names}

    @property
    def ours(self) -> bool:
        return bool(self._usual)

    def forbid(self) -> None:
        """No more than there are."""
        for path in self._usual:
            path.write_text("1")

    def restore(self) -> None:
        for path, value in self._usual.items():
            path.write_text(value)
