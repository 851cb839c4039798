"""How a container gets its devices: the strategies of Allocate's answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["device-specs", "cdi-annotations", "cdi-cri", "envvar"]
STRATEGIES: tuple[Strategy, ...] = ("device-specs", "cdi-annotations", "cdi-cri", "envvar")
#: The versions of CDI specs that have all that ours need.
CdiVersion = Literal["0.5.0", "0.6.0"]
CDI_VERSIONS: tuple[CdiVersion, ...] = ("0.5.0", "0.6.0")


@dataclass(frozen=True, slots=True)
class DeviceListStrategy:
    """`strategies`, several at once:

    device-specs: the kubelet makes the device nodes, on every version.
    cdi-annotations, cdi-cri: the container runtime makes them, from the CDI spec.
    envvar: nobody makes them; the environment variables, which every container
    gets, name the devices for a privileged one or for a hook of the runtime.

    `inject_sola`: whether the host's SOLA is mounted into containers, read-only.
    """

    strategies: frozenset[Strategy] = frozenset({"device-specs"})
    inject_sola: bool = False
    cdi_kind: str = "moffett.ai/spu"

    @property
    def uses_cdi(self) -> bool:
        return bool(self.strategies & {"cdi-annotations", "cdi-cri"})


#: The default: what every kubelet and every runtime can do.
PLAIN = DeviceListStrategy()
