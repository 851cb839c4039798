"""The cordons that `cordon` makes: a file in the plugin's directory on the host, so that they
outlive the pod and a reboot of the node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.sanitize import sanitize
from ..runtime.state_file import StateFile, StateFileError
from .health.cordon import Cordon, parse_target

MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class CordonFile:
    """`folder` is `stateDir`. A file that is missing is one without cordons."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "cordons.json"

    @property
    def _file(self) -> StateFile:
        return StateFile(self.path, "cordons")

    def read(self) -> tuple[Cordon, ...]:
        """Raises StateFileError."""
        found: list[Cordon] = []
        for item in self._file.read():
            target = parse_target(str(item.get("id")))
            if target is None:
                raise StateFileError(f"{self.path}: a cordon has no ID of a device or card")
            reason = sanitize(str(item.get("reason") or ""))[:MAX_REASON]
            found.append(Cordon(target, "the command cordon", reason))
        return tuple(found)

    def read_annotation(self) -> str:
        """What the Node's annotation said last. Raises StateFileError."""
        return ",".join(str(item.get("id")) for item in self._annotation.read())

    def write_annotation(self, text: str) -> None:
        """Raises OSError, StateFileError."""
        with self._annotation.changed() as items:
            items[:] = [{"id": part.strip()} for part in text.split(",") if part.strip()]

    @property
    def _annotation(self) -> StateFile:
        return StateFile(self.folder / "node-annotation.json", "cordons")

    def add(self, target: str, reason: str) -> None:
        """Raises OSError, StateFileError."""
        self.read()
        with self._file.changed() as items:
            items[:] = [item for item in items if item["id"] != target]
            items.append({"id": target, "reason": sanitize(reason)[:MAX_REASON]})

    def remove(self, target: str) -> bool:
        """Whether it was there. Raises OSError, StateFileError."""
        self.read()
        with self._file.changed() as items:
            rest = [item for item in items if item.get("id") != target]
            there = len(rest) < len(items)
            items[:] = rest
        return there
