"""The labels of this node: follows them and one annotation, and writes those of the plugin."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

from ..labels.compute import LABELS
from ..runtime.watchable import Watchable
from .client import ApiClient
from .errors import ApiError, Backoff
from .responses import Object, resource_version

log = logging.getLogger(__name__)

#: Devices and cards of this node that are taken out of service, with commas between them.
CORDON_ANNOTATION = "moffett.ai/spu-cordon"
#: Approximate seconds of one watch; the next one continues where it ended.
WATCH_SECONDS = 600
#: Seconds after which the labels are written again, in case someone removed them.
REFRESH = 3600.0


class NodeLabels:
    """Keeps `latest` equal to the labels of the node; None until they are first read. It
    does not change while the API server is not available. `cordons`, if given, is kept to
    the annotation CORDON_ANNOTATION in the same way; empty where the node has none."""

    def __init__(
        self,
        client: ApiClient,
        latest: Watchable[Mapping[str, str] | None],
        backoff: Backoff | None = None,
        watch_seconds: int = WATCH_SECONDS,
        cordons: Watchable[str | None] | None = None,
    ) -> None:
        self.latest = latest
        self._cordons = cordons
        self._client = client
        self._backoff = backoff or Backoff()
        self._seconds = watch_seconds

    async def run(self) -> None:
        """Runs until it is cancelled."""
        version = ""
        while True:
            try:
                if not version:
                    node, version = await self._client.list_node()
                    self._publish(node)
                version = await self._watch(version)
            except ApiError as error:
                if error.status == 410:  # the version is too old: list again
                    version = ""
                await asyncio.sleep(self._backoff.failed(error))

    async def _watch(self, version: str) -> str:
        """Returns the last resourceVersion seen."""
        began = time.monotonic()
        seconds = int(self._seconds * random.uniform(0.8, 1.2)) or 1  # noqa: S311  (not a secret)
        try:
            async for kind, node in self._client.watch_node(version, seconds):
                self._backoff.succeeded()
                version = resource_version(node) or version
                if kind == "DELETED":
                    self._publish(None)
                elif kind in ("ADDED", "MODIFIED"):
                    self._publish(node)
        except ApiError as error:
            # The caller continues from `version`, or with a new list if it is too old.
            if error.status == 410:
                raise
            await asyncio.sleep(self._backoff.failed(error))
            return version
        if time.monotonic() - began < 1:  # a server that ends every watch immediately
            await asyncio.sleep(self._backoff.failed())
        else:
            self._backoff.succeeded()
        return version

    def _publish(self, node: Object | None) -> None:
        labels = _texts(node, "labels")
        if self.latest.value is None or labels != self.latest.value:
            self.latest.set(labels)
        if self._cordons is not None:
            text = _texts(node, "annotations").get(CORDON_ANNOTATION, "")
            if text != self._cordons.value:
                self._cordons.set(text)


class NodeLabelSink:
    """Writes the plugin's labels to the Node object: when they change, and every hour."""

    def __init__(
        self,
        client: ApiClient,
        refresh: float = REFRESH,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._refresh = refresh
        self._backoff = backoff or Backoff(most=3600.0)
        self._clock = clock
        self._put: Mapping[str, str] | None = None
        self._due = 0.0

    async def put(self, labels: Mapping[str, str]) -> float | None:
        """Returns the seconds until the next attempt after a failure, else None."""
        failed = bool(self._backoff.failures)
        if (left := self._due - self._clock()) > 0 and (labels == self._put or failed):
            return left if failed else None
        # None deletes a label of an earlier state or version; other labels stay.
        patch = {"metadata": {"labels": {name: labels.get(name) for name in LABELS}}}
        try:
            await self._client.patch_node(patch)
        except ApiError as error:
            pause = self._backoff.failed(error)
            self._due = self._clock() + pause
            return pause
        self._backoff.succeeded()
        self._due = self._clock() + self._refresh * random.uniform(0.8, 1)  # noqa: S311
        self._put = dict(labels)
        return None


def _texts(node: Object | None, key: str) -> Mapping[str, str]:
    """The labels or annotations."""
    metadata = node.get("metadata") if node else None
    texts = metadata.get(key) if isinstance(metadata, dict) else None
    return {str(k): str(v) for k, v in texts.items()} if isinstance(texts, dict) else {}
