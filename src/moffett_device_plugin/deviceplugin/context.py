"""What the plugins of a node work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..allocation.grants import Grants
from ..devices.monitor import Monitor
from ..hardware import Hardware
from ..resources.device_list_strategy import CdiVersion
from ..runtime.counters import Counters
from ..runtime.watchable import Watchable
from .kubelet_directory import KubeletDirectory
from .registration import RegistrationTimeouts

if TYPE_CHECKING:
    from ..podresources.watcher import PodResourcesWatcher

NodeLabels = Watchable[Mapping[str, str] | None]


@dataclass(frozen=True, slots=True)
class PluginContext:
    """The parts of the daemon that plugins read and use.

    `pod_resources` is None where nobody asks the kubelet who holds which device.
    `node_labels` is None where the configuration does not depend on them; its value is
    None until they are known. `claimed` are the devices that must not be given out because
    claims have them through DRA, each with the reason; None where there is no DRA.
    """

    monitor: Monitor
    hardware: Hardware
    directory: KubeletDirectory
    counters: Counters = field(default_factory=Counters)
    timeouts: RegistrationTimeouts = field(default_factory=RegistrationTimeouts)
    pod_resources: PodResourcesWatcher | None = None
    node_labels: NodeLabels | None = None
    cdi_dir: Path = Path("/var/run/cdi")
    cdi_version: CdiVersion = "0.6.0"
    claimed: Watchable[Mapping[str, str]] | None = None
    grants: Grants | None = None
