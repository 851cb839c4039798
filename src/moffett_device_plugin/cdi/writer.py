"""Keeps the node's CDI spec true: written when the devices change, again when it was
lost, and tried again while it cannot be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from ..devices.inventory import Snapshot
from ..devices.state import NodeState
from ..hardware.types import DeviceNode, Mount
from ..runtime.watchable import Watchable
from .directory import CdiDirectory, CdiError
from .spec import DEFAULT_VERSION, Version, build_spec, nodes_there

log = logging.getLogger(__name__)

#: Seconds between looks at what no change of the node tells: a file that somebody took
#: away, a directory that can be written again.
SAFETY_PERIOD = 10.0

#: What a spec is made of: each device's id, card and switch, its nodes while it is
#: there, the nodes that all share, and the mounts.
_Content = tuple[tuple[tuple[object, ...], ...], tuple[DeviceNode, ...], tuple[Mount, ...]]


class SpecWriter:
    """`ready` tells whether engines know exactly the devices of the last snapshot; it
    changes with `ensure`, which `run` calls whenever there may be reason to. `mounts` is
    asked each time: an installation can be replaced by one at another path."""

    def __init__(
        self,
        directory: CdiDirectory,
        mounts: Callable[[], Sequence[Mount]] = tuple,
        at_least: Version = DEFAULT_VERSION,
    ) -> None:
        self.directory = directory
        self.ready: Watchable[bool] = Watchable(False)
        self._mounts = mounts
        self._at_least = at_least
        self._done: _Content | None = None  # what the file was made of
        self._identity: tuple[int, ...] | None = None  # of the file, as we left it
        self._error = ""  # what the log said last of why it is not written

    async def run(self, state: Watchable[NodeState]) -> None:
        """Until it is cancelled. The file then stays: containers that are restarted need
        it, and the next copy of the plugin brings it up to date."""
        version = -1
        while True:
            try:
                async with asyncio.timeout(SAFETY_PERIOD):
                    _, version = await state.after(version)
            except TimeoutError:
                pass
            self.ensure(state.value.snapshot)

    def ensure(self, snapshot: Snapshot) -> bool:
        """Makes the file say what `snapshot` does, here and now; says in the log what
        came of it, and never raises. Call it before a list of devices is advertised, so
        that none is under a name that engines do not know; False when that failed."""
        if snapshot.scan == 0:
            return self.ready.value  # nobody has looked yet: a predecessor's file is right
        content = _content(snapshot, tuple(self._mounts()))
        if content != self._done or self.directory.identity() != self._identity:
            self._write(snapshot, content)
        if self.ready.value != (not self._error):
            self.ready.set(not self._error)
        return not self._error

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
