"""Paths of the host, as seen below its root.

A link of the host's that leads to an absolute path means a path of the host, also when
the host's root is mounted somewhere else; one resolver follows all links that way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MOST_LINKS = 40  # as the kernel's own limit


@dataclass(frozen=True, slots=True)
class HostRoot:
    """`root` is where this process sees the host's root directory."""

    root: Path

    def see(self, path: str) -> Path:
        """Where this process sees the host's `path`, with every link in it followed
        inside the root. Its last parts need not exist."""
        return self._below(self.resolve(path))

    def resolve(self, path: str) -> str:
        """The host's `path` without links, as the host writes it."""
        done: list[str] = []
        parts = path.split("/")[::-1]
        links = 0
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            try:
                target = str(self._below("/".join((*done, part))).readlink())
            except (OSError, ValueError):
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                return "/" + "/".join((*done, part, *reversed(parts)))
            if target.startswith("/"):
                done = []
            parts += target.split("/")[::-1]
        return "/" + "/".join(done)

    def nearest(self, path: str) -> Path:
        """Where `path` is seen, or the nearest directory above it that exists."""
        seen = self.see(path)
        while not seen.exists() and seen not in (self.root, seen.parent):
            seen = seen.parent
        return seen

    def _below(self, path: str) -> Path:
        return self.root / path.lstrip("/")
