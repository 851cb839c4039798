"""Which machine the hardware back end looks at, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_CONTROL = "/run/moffett-device-plugin/simulation.json"


@dataclass(frozen=True, slots=True)
class HardwareSettings:
    """`smi` is the command to run, None for the host root's own, "" for none at all;
    `smi_timeout` is in seconds. `control_devices` are patterns of device nodes for every
    container; `device_nodes` are templates of each device's own, and `!PATTERN` for nodes
    that are left out. `virtual_functions` is whether those of SR-IOV are devices.
    `simulate` is the products of a simulated node's cards, empty for a real node."""

    host_root: Path = Path("/")
    smi: str | None = None
    smi_timeout: float = 5.0
    control_devices: tuple[str, ...] = ()
    device_nodes: tuple[str, ...] = ()
    virtual_functions: bool = False
    simulate: tuple[str, ...] = ()
    simulate_control: Path = Path(DEFAULT_CONTROL)
