"""Labels that the API server did not take are brought again in good time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.kubernetes.client import ApiClient
from moffett_device_plugin.kubernetes.errors import ApiError, Backoff
from moffett_device_plugin.kubernetes.nodelabels import NodeLabelSink
from moffett_device_plugin.labels.compute import ResourceFacts
from moffett_device_plugin.labels.follow import follow_labels
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.running import on_a_loop, within


class Busy:
    """An API server that has no time for the first requests."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.taken = asyncio.Event()

    async def patch_node(self, patch: Mapping[str, Any]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ApiError(429, "TooManyRequests", "come again")
        self.taken.set()


@on_a_loop
async def test_labels_that_were_refused_do_not_wait_for_the_next_look() -> None:
    server = Busy(refusals=3)
    sink = NodeLabelSink(cast(ApiClient, server), backoff=Backoff(first=0.001))
    state = Watchable(NodeState(settled=True))
    facts = [ResourceFacts("moffett.ai/spu")]
    following = asyncio.ensure_future(follow_labels(state, lambda: facts, sink, period=1000))
    await within(server.taken.wait())
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
