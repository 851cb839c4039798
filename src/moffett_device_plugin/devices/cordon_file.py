"""The cordons that `cordon` makes: a file in the plugin's directory on the host, so that they
outlive the pod and a reboot of the node."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..runtime.sanitize import sanitize
from .health.cordon import Cordon, parse_target

FILE = "cordons.json"
VERSION = 1
#: A file that is larger is not ours.
MAX_BYTES = 1024 * 1024
MAX_REASON = 300


class CordonFileError(Exception):
    """The file is there, and what it says is not known."""


@dataclass(frozen=True, slots=True)
class CordonFile:
    """`folder` is `stateDir`. A file that is missing is one without cordons."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def read(self) -> tuple[Cordon, ...]:
        """Raises CordonFileError."""
        return tuple(Cordon(t, "the command cordon", why) for t, why in self._read().items())

    def add(self, target: str, reason: str) -> None:
        """Raises OSError, CordonFileError."""
        with self._changed() as cordons:
            cordons[target] = sanitize(reason)[:MAX_REASON]

    def remove(self, target: str) -> bool:
        """Whether it was there. Raises OSError, CordonFileError."""
        with self._changed() as cordons:
            return cordons.pop(target, None) is not None

    def _read(self) -> Mapping[str, str]:
        try:
            with self.path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise CordonFileError(f"{self.path}: {error.strerror}") from error
        try:
            if len(text) > MAX_BYTES:
                raise ValueError("it is too large")
            return _parse(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise CordonFileError(f"{self.path}: {error}") from error

    @contextmanager
    def _changed(self) -> Iterator[dict[str, str]]:
        """The cordons by target; what the block made of them is written."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # two commands at once
            before = self._read()
            cordons = dict(before)
            yield cordons
            if cordons != before:
                self._write(cordons)
                os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, cordons: Mapping[str, str]) -> None:
        items = [{"id": target, "reason": reason} for target, reason in sorted(cordons.items())]
        new = self.path.with_name(f".{FILE}.new")
        with new.open("w") as file:
            json.dump({"version": VERSION, "cordons": items}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)


def _parse(document: object) -> dict[str, str]:
    """Raises ValueError."""
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"it is not of version {VERSION}")
    items: object = document.get("cordons")
    found: dict[str, str] = {}
    for item in items if isinstance(items, list) else [items]:
        target = parse_target(str(item.get("id"))) if isinstance(item, dict) else None
        if target is None or not isinstance(item, dict):
            raise ValueError("a cordon has no ID of a device or card")
        found[target] = sanitize(str(item.get("reason") or ""))[:MAX_REASON]
    return found
