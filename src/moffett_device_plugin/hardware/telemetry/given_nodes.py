"""Whether the device nodes that this container was given still lead to the devices.

A running container keeps the nodes and the rules that it was started with. After a card's
reboot its nodes may have other numbers: the container's own lead nowhere then (ENXIO), or
the rules do not let it open them (EPERM). A start of the container reads the numbers anew.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import Look
from ..reader import OverdueError, Reader
from ..sysfs_hardware import SysfsHardware
from ..types import PciFunction

Kind = Literal["missing", "other-number", "refused", "no-device"]
#: What the kernel says when the node, not the device, is the cause.
_ERRORS: Mapping[int, Kind] = {
    errno.EPERM: "refused",
    errno.EACCES: "refused",
    errno.ENXIO: "no-device",
    errno.ENOENT: "missing",
}
_TEXTS: Mapping[Kind, str] = {
    "missing": "this container was not given it",
    "other-number": "it has another number on the host than in this container",
    "refused": "this container may not open it",
    "no-device": "it leads to no device",
}
#: Seconds for the scan, and for the attempts to open nodes.
DEADLINE = 5.0

RESTART = "start this container again: it gets the numbers that the nodes have now"
NEW_POD = "delete this pod: its successor is given the nodes that there are now"


@dataclass(frozen=True, slots=True)
class Problem:
    """A node of a device on the bus that is of no use in this container."""

    path: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.path}: {_TEXTS[self.kind]}"


def remedy_of(problem: str) -> str:
    """For the text of a problem."""
    return NEW_POD if problem.endswith(_TEXTS["missing"]) else RESTART


def judge(
    functions: Iterable[PciFunction],
    numbers: Mapping[str, tuple[int, int]],
    given: Mapping[str, tuple[int, int]],
) -> tuple[Problem, ...]:
    """Compares what sysfs shows with what the container has. Pure. `numbers`: major and
    minor by path on the host; `given`: by path in the container."""
    problems: list[Problem] = []
    for function in functions:
        for node in function.nodes:
            have, wanted = given.get(node.container_path), numbers.get(node.host_path)
            if have is None:
                problems.append(Problem(node.container_path, "missing"))
            elif wanted is not None and have != wanted:
                problems.append(Problem(node.container_path, "other-number"))
    return tuple(problems)


class GivenNodes:
    """`root` is where the container's own /dev is found."""

    def __init__(self, hardware: SysfsHardware, root: Path = Path("/")) -> None:
        self._hardware = hardware
        self._root = root
        self._reader = Reader()
        self._ever: frozenset[str] = frozenset()  # paths that this container has
        #: Whether each device on the bus has nodes that could be looked at.
        self.certain = False
        #: What a start of the container would put right; None while nothing is.
        self.restart_helps = False

    def close(self) -> None:
        self._reader.close()

    async def check(
        self, listed: Collection[str] = (), *, everything: bool = False
    ) -> Sequence[Problem]:
        """The problems of the devices that mx-smi did not list, by bus ID: nodes of others
        evidently work, and nothing is opened that works."""
        suspects = frozenset() if everything else frozenset(listed)
        try:
            return await self._reader.read(
                lambda look: self._check(look, suspects), Look(), DEADLINE
            )
        except (OverdueError, OSError):
            self.certain = self.restart_helps = False
            return ()

    def _check(self, look: Look, listed: frozenset[str]) -> Sequence[Problem]:
        scan = self._hardware.scan(look)
        numbers = self._hardware.node_numbers
        unlisted = [f for f in scan.functions if f.bus_id not in listed]
        nodes = [node for function in scan.functions for node in function.nodes]
        given = self._given(node.container_path for node in nodes)
        problems = list(judge(unlisted, numbers, given))
        known = {problem.path for problem in problems}
        for node in (node for function in unlisted for node in function.nodes):
            if node.container_path not in known and (kind := self._opened(node.container_path)):
                problems.append(Problem(node.container_path, kind))
        self.certain = all(function.nodes for function in unlisted)
        self._ever |= given.keys()
        gone = self._ever - {node.container_path for node in nodes}
        # A container whose node has gone from the host cannot be started again.
        self.restart_helps = not gone and any(problem.kind != "missing" for problem in problems)
        return problems

    def _given(self, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for path in paths:
            try:
                status = self._at(path).stat()
            except OSError:
                continue
            if stat.S_ISCHR(status.st_mode):
                found[path] = os.major(status.st_rdev), os.minor(status.st_rdev)
        return found

    def _opened(self, path: str) -> Kind | None:
        try:
            os.close(os.open(self._at(path), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            return _ERRORS.get(error.errno or 0)
        return None

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")
