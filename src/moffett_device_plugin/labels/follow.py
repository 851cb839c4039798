"""Keeps labels true, wherever they go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ..devices.state import NodeState
from ..runtime.watchable import Watchable
from .compute import ResourceFacts, labels_of, still_true

log = logging.getLogger(__name__)

#: Seconds after which a sink is asked again although nothing changed: for resources
#: that were configured anew, and for what somebody else did to the labels.
LOOK_PERIOD = 60.0


class LabelSink(Protocol):
    """Where labels go. `put` makes them so where they are not, and never fails: it
    tells the log, and is called again after the next change, after as many seconds as it
    says, or after LOOK_PERIOD."""

    async def put(self, labels: Mapping[str, str]) -> float | None: ...


async def follow_labels(
    state: Watchable[NodeState],
    resources: Callable[[], Sequence[ResourceFacts]],
    sink: LabelSink,
    period: float = LOOK_PERIOD,
) -> None:
    """Runs until it is cancelled. Nothing is put before the state is settled."""
    version = -1
    labels: Mapping[str, str] = {}
    told: Mapping[str, str] | None = None
    wait = period
    while True:
        try:
            async with asyncio.timeout(wait):
                _, version = await state.after(version)
        except TimeoutError:
            pass
        if not state.value.settled:
            continue
        labels = still_true(labels, labels_of(state.value, resources()))
        if labels != told:
            log.info("labels", extra={"labels": [f"{k}={v}" for k, v in labels.items()]})
            told = labels
        again = await sink.put(labels)
        wait = period if again is None else min(again, period)
