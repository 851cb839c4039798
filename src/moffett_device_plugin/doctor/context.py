"""What the checks look at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..devices.health.policy import HealthPolicy
from ..devices.state import NodeState
from ..hardware.settings import HardwareSettings
from ..podresources.client import SOCKET
from ..resources.conflicts import mark_conflicts
from ..resources.device_ids import DeviceIds
from ..resources.device_list_strategy import DeviceListStrategy
from ..resources.pools import Resource, ResourcePool, build_pools
from ..runtime.errors import ConfigurationError
from ..settings.options import RawValue
from .holders import Held


@dataclass(frozen=True, slots=True)
class Environment:
    """Where this process runs. `root` is its own root directory, for tests another."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0

    def read(self, path: str) -> str | None:
        """A file's text, without the space around it; None when it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    @property
    def in_container(self) -> bool:
        """By what container runtimes leave behind; a root of its own on overlayfs too."""
        marks = (".dockerenv", "run/.containerenv")
        if any((self.root / mark).exists() for mark in marks):
            return True
        if self.environment.get("KUBERNETES_SERVICE_HOST"):
            return True
        return bool(re.search(r" / / \S+ .*- overlay ", self.read("proc/self/mountinfo") or ""))

    @property
    def capabilities(self) -> int:
        """The effective set, as a bit mask."""
        status = self.read("proc/self/status") or ""
        match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        return int(match[1], 16) if match else 0


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for: `list_and_watch` also asks our plugins for their lists,
    `open_nodes` tries to open device nodes inside a container."""

    list_and_watch: bool = False
    open_nodes: bool = True


@dataclass(frozen=True, slots=True)
class Context:
    """All that is known before the first check.

    `state_error` says why `state` is not all that it should be. `wrong_settings` are
    what variables or the configuration file say that cannot be; defaults are used in
    their place. `given` has every setting by its variable, and where it comes from.
    """

    hardware: HardwareSettings
    policy: HealthPolicy
    kubelet_dir: Path
    pod_resources: Path = SOCKET
    resources: tuple[Resource, ...] = (Resource(),)
    device_list_strategy: DeviceListStrategy = field(default_factory=DeviceListStrategy)
    cdi_dir: Path = Path("/var/run/cdi")
    state: NodeState = field(default_factory=NodeState)
    state_error: str | None = None
    held: Held = field(default_factory=Held)
    place: Environment = field(default_factory=Environment)
    options: Options = Options()
    wrong_settings: tuple[ConfigurationError, ...] = ()
    given: Mapping[str, RawValue] = field(default_factory=dict)
    by_labels: bool = False  # parts of the file hold for some labels, which are not known
    arguments: Sequence[str] = ()  # what the doctor itself was given

    @property
    def simulated(self) -> bool:
        return bool(self.hardware.simulate)

    @property
    def sys(self) -> Path:
        return self.hardware.host_root / "sys"

    def on_host(self, path: str) -> Path:
        """Where a path of the host's is seen from here."""
        return self.hardware.host_root / path.lstrip("/")

    def pools(self) -> tuple[ResourcePool, ...]:
        """What should be advertised now, as the daemon would."""
        device_ids = DeviceIds(self.state.snapshot.devices)
        pools, _ = build_pools(self.state, self.resources)
        return tuple(mark_conflicts(pool, self.held.units, device_ids) for pool in pools)
