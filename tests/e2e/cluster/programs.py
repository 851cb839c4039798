"""The programs that make a cluster, and the cache that keeps those that were built."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

#: Taken from the machine's own packages unless a release brings its own.
FROM_PACKAGES = ("etcd", "containerd", "ctr")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one Kubernetes version: those in a folder, and Debian's."""

    version: str
    folder: Path

    @property
    def minor(self) -> tuple[int, int]:
        """What tests ask for when kubelets differ.

        >>> Programs("1.37.2", Path("/cache")).minor
        (1, 37)
        """
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    def path(self, name: str) -> Path:
        """Return the path of one program, or its bare name if the machine's own is used."""
        return self.folder / name if self.brings(name) else Path(name)

    def brings(self, name: str) -> bool:
        """Tell whether this release has a program of its own where Debian has one, too."""
        return name not in FROM_PACKAGES or (self.folder / name).exists()


def cache_folder() -> Path:
    """Return the folder that keeps finished programs between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moffett-device-plugin"


def place(source: Path, target: Path) -> None:
    """Copy a finished program into the cache in one step, so no half of one is ever used."""
    new = target.with_name(f".{target.name}.new")
    shutil.copy2(source, new)
    new.rename(target)


def say(text: str) -> None:
    """Tell whoever waits what is being built."""
    print(f"  kubernetes: {text}", file=sys.stderr, flush=True)
