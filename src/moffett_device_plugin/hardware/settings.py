"""Which machine the hardware back end looks at, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SMI_SOURCES = ("mx-smi", "socket", "none")
DEFAULT_TELEMETRY_SOCKET = "/run/moffett-device-plugin/telemetry/telemetry.sock"
DEFAULT_CONTROL = "/run/moffett-device-plugin/simulation.json"


@dataclass(frozen=True, slots=True)
class HardwareSettings:
    """`smi` is the command to run, None for the host root's own, "" for none at all;
    `smi_timeout` is in seconds. `control_devices` are patterns of device nodes for every
    container; `device_nodes` are templates of each device's own, and `!PATTERN` for nodes
    that are left out. `virtual_functions` is whether those of SR-IOV are devices.
    `smi_source` is where readings come from: `mx-smi` for a run of the command,
    `socket` for the telemetry process that listens on `telemetry_socket`, `none`.
    `simulate` is the products of a simulated node's cards, empty for a real node."""

    host_root: Path = Path("/")
    smi: str | None = None
    smi_timeout: float = 5.0
    smi_source: str = "mx-smi"
    telemetry_socket: Path = Path(DEFAULT_TELEMETRY_SOCKET)
    control_devices: tuple[str, ...] = ()
    device_nodes: tuple[str, ...] = ()
    virtual_functions: bool = False
    simulate: tuple[str, ...] = ()
    simulate_control: Path = Path(DEFAULT_CONTROL)
