"""What runs beside the plugin and reads what it knows: metrics, labels, events, the
condition of the node. Each is imported where it is turned on, and on no other node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .deviceplugin.manager import Offers
from .devices.monitor import Monitor
from .runtime.counters import Tally
from .runtime.watchable import Latest
from .settings.settings import BesideSettings, ServeSettings

if TYPE_CHECKING:
    from .kubernetes.settings import ApiSettings
    from .metrics.address import Address
    from .podresources.client import Holder
    from .podresources.watcher import Holdings

NodeLabels = Latest[Mapping[str, str] | None]

#: Seconds that a loop of the daemon may stand still before it counts as hung.
STALLED = 30.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the daemon that are read. `settings` are those of the moment."""

    monitor: Monitor
    offers: Offers
    tally: Tally
    holdings: Holdings | None
    settings: Callable[[], ServeSettings]


async def run_beside(
    settings: BesideSettings,
    parts: Parts,
    api: ApiSettings | None,
    node_labels: NodeLabels | None,
) -> None:
    """Until it is cancelled. `api` is None unless something needs the API server;
    `node_labels`, if given, is kept to the labels of the node."""
    async with asyncio.TaskGroup() as tasks:
        if settings.metrics is not None:
            tasks.create_task(_metrics(settings.metrics, parts))
        if settings.nfd_file is not None:
            tasks.create_task(_label_file(settings, parts))
        if api is not None:
            tasks.create_task(_api(settings, parts, api, node_labels))


async def _metrics(address: Address, parts: Parts) -> None:
    from .metrics.exporter import Exporter
    from .metrics.heartbeat import Pulse

    def smi_limit() -> float:
        settings = parts.settings()
        return STALLED + settings.smi_interval + settings.hardware.smi_timeout

    pulse = Pulse({"bus": STALLED, "mx-smi": smi_limit()})

    def beat(loop: str) -> None:
        if loop == "mx-smi":
            pulse.expect(loop, smi_limit())  # it may have another pace from now on
        else:
            pulse.beat(loop)

    parts.monitor.beat = beat
    await Exporter(
        address,
        parts.monitor,
        parts.offers,
        parts.tally,
        lambda: parts.settings().health,
        pulse,
        parts.holdings,
    ).run()


async def _label_file(settings: BesideSettings, parts: Parts) -> None:
    from .labels.facts import facts_of
    from .labels.follow import follow_labels
    from .labels.nfd import DEFAULT_FILE, FeatureFile

    file = FeatureFile(settings.nfd_file or DEFAULT_FILE)
    offers = parts.offers
    await follow_labels(parts.monitor.state, lambda: facts_of(offers.divisions), file)


async def _api(
    settings: BesideSettings, parts: Parts, api: ApiSettings, node_labels: NodeLabels | None
) -> None:
    from .kubernetes.features import run_api_features
    from .labels.facts import facts_of, holders_by_device

    def holders() -> Mapping[str, Sequence[Holder]]:
        held = {} if parts.holdings is None else parts.holdings.holders.value
        return holders_by_device(parts.offers.divisions, held)

    await run_api_features(
        api,
        settings.api,
        parts.monitor.state,
        lambda: facts_of(parts.offers.divisions),
        holders,
        node_labels,
    )
