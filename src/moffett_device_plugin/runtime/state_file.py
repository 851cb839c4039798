"""A small JSON file that outlives the process: replaced whole, one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: A file that is larger is not ours.
MAX_BYTES = 1024 * 1024


class StateFileError(Exception):
    """The file is there, and what it says is not known."""


@dataclass(frozen=True, slots=True)
class StateFile:
    """A list of objects, each a dictionary, under `key`; `version` is of their form. A file
    that is missing is an empty list."""

    path: Path
    key: str
    version: int = 1

    def read(self) -> list[dict[str, Any]]:
        """Raises StateFileError."""
        try:
            with self.path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StateFileError(f"{self.path}: {error.strerror}") from error
        try:
            return self._items(text)
        except (ValueError, RecursionError) as error:
            raise StateFileError(f"{self.path}: {error}") from error

    @contextmanager
    def changed(self) -> Iterator[list[dict[str, Any]]]:
        """The items; what the block makes of them is written. Raises OSError and
        StateFileError, and then the file is as it was."""
        folder = self.path.parent
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.read()
            items = [dict(item) for item in before]
            yield items
            if items != before:
                self._write(items)
                os.fsync(lock)
        finally:
            os.close(lock)

    def _items(self, text: bytes) -> list[dict[str, Any]]:
        if len(text) > MAX_BYTES:
            raise ValueError("it is too large")
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("version") != self.version:
            raise ValueError(f"it is not of version {self.version}")
        items = document.get(self.key)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ValueError(f"it has no list of {self.key}")
        return items

    def _write(self, items: list[dict[str, Any]]) -> None:
        new = self.path.with_name(f".{self.path.name}.new")
        with new.open("w") as file:
            json.dump({"version": self.version, self.key: items}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
