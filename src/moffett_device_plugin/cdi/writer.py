"""Writes the node's CDI spec when the devices changed, and again when it was lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ..devices.inventory import Snapshot
from ..hardware.types import DeviceNode, Mount
from .directory import CdiDirectory, CdiError
from .spec import DEFAULT_VERSION, Version, build_spec, nodes_there

log = logging.getLogger(__name__)

#: What a spec is made of: each device's id, card and switch, its nodes while it is
#: there, the nodes that all share, and the mounts.
_Content = tuple[tuple[tuple[object, ...], ...], tuple[DeviceNode, ...], tuple[Mount, ...]]


class SpecWriter:
    """Writes the spec of a snapshot where that is not in force. `mounts` is asked each
    time: an installation can be replaced by one at another path."""

    def __init__(
        self,
        directory: CdiDirectory,
        mounts: Callable[[], Sequence[Mount]] = tuple,
        at_least: Version = DEFAULT_VERSION,
    ) -> None:
        self.directory = directory
        self._mounts = mounts
        self._at_least = at_least
        self._done: _Content | None = None  # what the file was made of
        self._identity: tuple[int, ...] | None = None  # of the file, as we left it
        self._error = ""  # the last reason in the log why it is not written

    def in_force(self, snapshot: Snapshot) -> bool:
        """Whether engines know exactly the devices of `snapshot`, so that `ensure` would
        write nothing. Looks at the file's status and no more."""
        content = _content(snapshot, tuple(self._mounts()))
        return content == self._done and self.directory.identity() == self._identity

    def ensure(self, snapshot: Snapshot) -> bool:
        """Makes the file say what `snapshot` does, here and now; says in the log what
        came of it, and never raises. Call it before a list of devices is advertised, so
        that none is under a name that engines do not know; False when that failed."""
        # Before the first scan a predecessor's file is right.
        if snapshot.scan and not self.in_force(snapshot):
            self._write(snapshot, _content(snapshot, tuple(self._mounts())))
        return self._done is not None

    def _write(self, snapshot: Snapshot, content: _Content) -> None:
        spec = build_spec(snapshot, self.directory.kind, content[-1], self._at_least)
        try:
            if spec is None:
                changed, event = self.directory.remove(), "cdi-spec-removed"
            else:
                changed, event = self.directory.write(spec), "cdi-spec-written"
        except CdiError as error:
            self._done = None
            if str(error) != self._error:
                self._error = str(error)
                effect = "engines do not know the devices by their CDI names; it is tried again"
                log.warning("cdi-unavailable", extra={"error": error, "effect": effect})
            return
        recovered, self._error = bool(self._error), ""
        self._done, self._identity = content, self.directory.identity()
        if changed or recovered:
            names = [] if spec is None else [device["name"] for device in spec["devices"]]
            log.info(event, extra={"file": self.directory.file, "names": len(names)})


def _content(snapshot: Snapshot, mounts: tuple[Mount, ...]) -> _Content:
    devices = tuple(
        (device.id, device.card_id, device.function.switch, nodes_there(device))
        for device in snapshot.devices
    )
    return devices, snapshot.control_nodes, mounts
