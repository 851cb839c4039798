"""What the driver works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..allocation.grants import Grants
from ..cdi.names import DEFAULT_KIND
from ..cdi.spec import DEFAULT_VERSION, Version
from ..devices.monitor import Monitor
from ..devices.state import NodeState
from ..hardware import Hardware
from ..kubernetes.settings import ApiSettings
from ..podresources.watcher import PodResourcesWatcher

REGISTRY = Path("/var/lib/kubelet/plugins_registry")


@dataclass(frozen=True, slots=True)
class NodeDriverContext:
    """The parts of the daemon that the driver reads and uses.

    `registry` has to be where the kubelet has it, on the host as in the container.
    `inject_sola` is for claims whose parameters do not say. `grants` are those of the
    device plugins of this process. `evict` are the codes of reasons that end the pods of a
    chip. `chips` says which chips of the node are given out
    through DRA; None: all.
    """

    api: ApiSettings
    monitor: Monitor
    hardware: Hardware
    pod_resources: PodResourcesWatcher
    registry: Path = REGISTRY
    cdi_dir: Path = Path("/var/run/cdi")
    cdi_kind: str = DEFAULT_KIND
    cdi_version: Version = DEFAULT_VERSION
    inject_sola: bool = False
    grants: Grants | None = None
    evict: frozenset[str] = frozenset()
    chips: Callable[[NodeState], frozenset[str]] | None = None

    @property
    def node(self) -> str:
        return self.api.node


@dataclass(frozen=True, slots=True)
class DriverTimes:
    """In seconds. `settle`: how long a claim waits for the first look at the devices;
    `get`: for the API server's answer; `held`: for a chip that another holder has; `check`:
    between looks at the files; `sweep`: between looks for claims that no longer exist, which
    have to be missing for `orphan`; `handover`: how long calls are answered after the kubelet
    was shown the end; `linger`: how long the driver stays after its last claim; `unseen`:
    after which a kubelet that did not register is in the log. A kubelet waits for 45 s."""

    settle: float = 10.0
    get: float = 15.0
    held: float = 20.0
    check: float = 10.0
    sweep: float = 300.0
    orphan: float = 600.0
    handover: float = 1.5
    linger: float = 5.0
    unseen: float = 30.0


TIMES = DriverTimes()
