"""The programs that make a cluster, and the cache that keeps those that were built."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Taken from the machine's own packages unless a release brings its own.
FROM_PACKAGES = ("etcd", "containerd", "ctr")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one Kubernetes version: those in a folder, for what it lacks those of
    another release (``shared``), and Debian's."""

    version: str
    folder: Path
    shared: Path | None = None

    @property
    def minor(self) -> tuple[int, int]:
        """What tests ask for when kubelets differ.

        >>> Programs("1.37.2", Path("/cache")).minor
        (1, 37)
        """
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where programs are looked for, in this order."""
        return (self.folder,) if self.shared is None else (self.folder, self.shared)

    def path(self, name: str) -> Path:
        """Return the path of one program, or its bare name if the machine's own is used."""
        for folder in self.folders:
            if (folder / name).exists():
                return folder / name
        return Path(name) if name in FROM_PACKAGES else self.folder / name

    def brings(self, name: str) -> bool:
        """Tell whether this release has a program of its own where Debian has one, too."""
        return self.path(name) != Path(name)


def cache_folder() -> Path:
    """Return the folder that keeps finished programs between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moffett-device-plugin"


@contextmanager
def building(root: Path) -> Iterator[None]:
    """Hold a folder of the cache while it is filled: another run waits, and finds it full."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def place(source: Path, target: Path) -> None:
    """Copy a finished program into the cache in one step, so no half of one is ever used."""
    new = target.with_name(f".{target.name}.new")
    shutil.copy2(source, new)
    new.rename(target)


def say(text: str) -> None:
    """Tell whoever waits what is being built."""
    print(f"  kubernetes: {text}", file=sys.stderr, flush=True)
