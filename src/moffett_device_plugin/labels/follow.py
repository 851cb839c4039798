"""Keeps the labels up to date in a sink."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ..devices.state import NodeState
from ..runtime.watchable import Watchable
from .compute import ResourceFacts, labels_of, still_true

log = logging.getLogger(__name__)

#: Seconds after which the labels are put again without a change: the configuration may have
#: changed, or someone else may have changed the labels.
REFRESH = 60.0


class LabelSink(Protocol):
    """Where labels are written. `put` writes them if they differ and does not raise: it
    logs errors. It is called again after the next change, after the seconds that it
    returns, or after REFRESH."""

    async def put(self, labels: Mapping[str, str]) -> float | None: ...


async def follow_labels(
    state: Watchable[NodeState],
    resources: Callable[[], Sequence[ResourceFacts]],
    sink: LabelSink,
    period: float = REFRESH,
) -> None:
    """Runs until it is cancelled. Waits for a settled state first."""
    version = -1
    labels: Mapping[str, str] = {}
    logged: Mapping[str, str] | None = None
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
        if labels != logged:
            log.info("labels", extra={"labels": [f"{k}={v}" for k, v in labels.items()]})
            logged = labels
        retry = await sink.put(labels)
        wait = period if retry is None else min(retry, period)
