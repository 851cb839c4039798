"""All uses of the API, as one task of the daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ..devices.state import NodeState
from ..labels.compute import ResourceFacts
from ..labels.follow import follow_labels
from ..runtime.kept_running import kept_running
from ..runtime.watchable import Watchable
from .client import ApiClient
from .condition import ConditionReporter
from .events import Holders
from .nodelabels import NodeLabels, NodeLabelSink
from .reporter import EventReporter
from .settings import ApiFeatures, ApiSettings

log = logging.getLogger(__name__)


async def run_api_features(
    settings: ApiSettings,
    features: ApiFeatures,
    state: Watchable[NodeState],
    resources: Callable[[], Sequence[ResourceFacts]],
    holders: Callable[[], Holders],
    node_labels: Watchable[Mapping[str, str] | None] | None = None,
    cordons: Watchable[str | None] | None = None,
) -> None:
    """Runs the enabled features until it is cancelled. No error here stops the daemon,
    which must keep serving the kubelet.

    `node_labels`, if given, follows the labels of the node, and `cordons` its annotation.
    """
    client = ApiClient(settings)
    parts: dict[str, Callable[[], Awaitable[None]]] = {}
    if features.labels:
        sink = NodeLabelSink(client)
        parts["labels"] = lambda: follow_labels(state, resources, sink)
    if features.events:
        namespace = features.event_namespace
        parts["events"] = lambda: EventReporter(client, state, holders, namespace).run()
    if features.condition:
        parts["condition"] = lambda: ConditionReporter(client, state).run()
    if node_labels is not None or cordons is not None:
        nobody: Watchable[Mapping[str, str] | None] = Watchable(None)
        parts["node-labels"] = NodeLabels(client, node_labels or nobody, cordons=cordons).run
    log.info("api-features", extra={"server": settings.url, "features": list(parts)})
    try:
        async with asyncio.TaskGroup() as tasks:
            for name, run in parts.items():
                tasks.create_task(kept_running(name, run))
    finally:
        client.close()
