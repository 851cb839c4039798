"""Who holds which devices, kept up to date. Runs only when something needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..runtime.watchable import Watchable
from .client import SOCKET, ClaimUse, Holders, Holdings, PodResourcesError, list_holdings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefreshIntervals:
    """When to ask the kubelet, in seconds.

    `interval`: for what has no event, which is every end of a pod. `after_nudge`:
    how long after an allocation, one after the other, until the list has changed;
    the kubelet lists a pod only after it has admitted it.
    """

    interval: float = 30.0
    after_nudge: tuple[float, ...] = (0.05, 0.2, 0.75, 3.0)


class PodResourcesWatcher:
    """`holders` is the kubelet's last answer; before the first one, what `recall` returns,
    which is called whenever the kubelet did not answer. `claims` are the claims that
    containers use, by the same answer. `answered`: there has been one. `error` is why the
    kubelet does not answer now, None while it does."""

    def __init__(
        self,
        socket: Path = SOCKET,
        intervals: RefreshIntervals = RefreshIntervals(),
        ask: Callable[[], Awaitable[Holdings]] | None = None,
        recall: Callable[[], Holders] = dict,
    ) -> None:
        self.holders: Watchable[Holders] = Watchable({})
        self.claims: Watchable[tuple[ClaimUse, ...]] = Watchable(())
        self.error: str | None = None
        self._ask = ask or partial(list_holdings, socket)
        self._recall = recall
        self.answered = False
        self._intervals = intervals
        self._nudged = asyncio.Event()

    def refresh_soon(self) -> None:
        """A pod was just given devices: ask soon."""
        self._nudged.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        await self.refresh()
        while True:
            try:
                async with asyncio.timeout(self._intervals.interval):
                    await self._nudged.wait()
            except TimeoutError:
                await self.refresh()
            else:
                await self._ask_until_changed()

    async def refresh(self) -> bool:
        """Asks once; whether anything changed. What was last known stands while the
        kubelet does not answer: it may be restarting, and its pods go on."""
        try:
            holdings = await self._ask()
        except PodResourcesError as error:
            self._log_unavailable(str(error))
            return not self.answered and self._take(Holdings(self._recall()))
        if self.error is not None:
            self.error = None
            log.info("pod-resources-available")
        self.answered = True
        return self._take(holdings)

    def _take(self, holdings: Holdings) -> bool:
        changed = False
        if holdings.claims != self.claims.value:
            self.claims.set(holdings.claims)
            changed = True
        if holdings.devices != self.holders.value:
            self.holders.set(holdings.devices)
            changed = True
        return changed

    async def _ask_until_changed(self) -> None:
        while self._nudged.is_set():
            self._nudged.clear()
            for pause in self._intervals.after_nudge:
                # A new nudge is not waited for: it starts the pauses again.
                await asyncio.sleep(pause)
                if await self.refresh() or self._nudged.is_set():
                    break

    def _log_unavailable(self, why: str) -> None:
        if self.error is None:
            effect = "which pods hold the devices is not known"
            log.warning("pod-resources-unavailable", extra={"why": why, "effect": effect})
        self.error = why
