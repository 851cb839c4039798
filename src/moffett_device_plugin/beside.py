"""What runs beside the plugin and reads what it knows: labels, events, the condition of
the node. Each is imported where it is turned on, and on no other node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .latest import Latest
from .monitor import Monitor
from .offers import Offers
from .settings import BesideSettings

if TYPE_CHECKING:
    from .kubelet.holdings import Holdings
    from .kubelet.podresources import Holder
    from .kubernetes.settings import ApiSettings

NodeLabels = Latest[Mapping[str, str] | None]


async def run_beside(
    settings: BesideSettings,
    monitor: Monitor,
    offers: Offers,
    holdings: Holdings | None,
    api: ApiSettings | None,
    node_labels: NodeLabels | None,
) -> None:
    """Until it is cancelled. `api` is None unless something needs the API server;
    `node_labels`, if given, is kept to the labels of the node."""
    async with asyncio.TaskGroup() as tasks:
        if settings.nfd_file is not None:
            tasks.create_task(_label_file(settings, monitor, offers))
        if api is not None:
            tasks.create_task(_api(settings, monitor, offers, holdings, api, node_labels))


async def _label_file(settings: BesideSettings, monitor: Monitor, offers: Offers) -> None:
    from .labels.facts import facts_of
    from .labels.follow import follow_labels
    from .labels.nfd import DEFAULT_FILE, FeatureFile

    file = FeatureFile(settings.nfd_file or DEFAULT_FILE)
    await follow_labels(monitor.state, lambda: facts_of(offers.divisions), file)


async def _api(
    settings: BesideSettings,
    monitor: Monitor,
    offers: Offers,
    holdings: Holdings | None,
    api: ApiSettings,
    node_labels: NodeLabels | None,
) -> None:
    from .kubernetes.features import run_api_features
    from .labels.facts import facts_of, holders_by_device

    def holders() -> Mapping[str, Sequence[Holder]]:
        held = {} if holdings is None else holdings.holders.value
        return holders_by_device(offers.divisions, held)

    await run_api_features(
        api,
        settings.api,
        monitor.state,
        lambda: facts_of(offers.divisions),
        holders,
        node_labels,
    )
