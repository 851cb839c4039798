"""What the checks look at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..devices.health.cordon import Cordon
from ..devices.health.policy import HealthPolicy
from ..devices.inventory import Device
from ..devices.state import NodeState
from ..hardware.resolve import HostRoot
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
    """Where this process runs. `root` is its own root directory, in tests another."""

    root: Path = Path("/")
    variables: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0

    def read(self, path: str) -> str | None:
        """A file's text without surrounding space; None when it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    @property
    def in_container(self) -> bool:
        """By the files of container runtimes, or a root file system on overlayfs."""
        marks = (".dockerenv", "run/.containerenv")
        if any((self.root / mark).exists() for mark in marks):
            return True
        if self.variables.get("KUBERNETES_SERVICE_HOST"):
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

    `state_error` says why `state` is incomplete. `smi_seconds` is how long the run of mx-smi
    took. `wrong_settings` are the values of variables or the configuration file that are
    not valid; defaults are used in their place. `given` has every setting by its variable,
    and where it comes from. `by_labels`: parts of the file are for nodes with certain labels,
    which are not known here. `dra`: devices are given out through DRA. `cordon` is what the
    configuration takes out of service, `cordons` what is, `cordon_error` why that is not known.
    `arguments` are the doctor's own.
    """

    hardware: HardwareSettings
    policy: HealthPolicy
    kubelet_dir: Path
    pod_resources: Path | None = SOCKET
    resources: tuple[Resource, ...] = (Resource(),)
    device_list_strategy: DeviceListStrategy = field(default_factory=DeviceListStrategy)
    cdi_dir: Path = Path("/var/run/cdi")
    dra: bool = False
    plugins_registry: Path = Path("/var/lib/kubelet/plugins_registry")
    state_dir: Path = Path("/var/lib/moffett-device-plugin")
    cordon: tuple[str, ...] = ()
    cordon_annotation: bool = False
    cordons: tuple[Cordon, ...] = ()
    cordon_error: str = ""
    state: NodeState = field(default_factory=NodeState)
    state_error: str | None = None
    smi_seconds: float = 0.0
    held: Held = field(default_factory=Held)
    environment: Environment = field(default_factory=Environment)
    options: Options = Options()
    wrong_settings: tuple[ConfigurationError, ...] = ()
    given: Mapping[str, RawValue] = field(default_factory=dict)
    by_labels: bool = False
    arguments: Sequence[str] = ()

    @property
    def simulated(self) -> bool:
        return bool(self.hardware.simulate)

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.state.snapshot.devices

    @property
    def present(self) -> tuple[Device, ...]:
        """The devices that are on the bus."""
        return tuple(device for device in self.devices if device.present)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The device nodes of all devices and those that all share, by their host paths."""
        own = [node for device in self.devices for node in device.function.nodes]
        nodes = (*own, *self.state.snapshot.control_nodes)
        return tuple(dict.fromkeys(node.host_path for node in nodes))

    @property
    def sys(self) -> Path:
        return self.hardware.host_root / "sys"

    def on_host(self, path: str) -> Path:
        """Where a path of the host's is visible here, its links followed on the host."""
        return HostRoot(self.hardware.host_root).see(path)

    def pools(self) -> tuple[ResourcePool, ...]:
        """What should be advertised now, as the daemon would."""
        pools, _ = build_pools(self.state, self.resources)
        ids = DeviceIds(self.devices)
        return tuple(mark_conflicts(pool, self.held.by_resource, ids) for pool in pools)
