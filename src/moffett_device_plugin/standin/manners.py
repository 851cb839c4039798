"""How a kubelet treats the plugins that register: its version's way, or a fault's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Manners:
    """The defaults are those of kubelet 1.20, as observed.

    `register`: what happens to a Register that comes in. `dial`: when the plugin is
    dialled back. `authority`: what its calls carry as `:authority`; empty for the
    socket's path, as before 1.26.
    """

    register: Literal["answer", "refuse", "hang", "die"] = "answer"
    dial: Literal["after-answering", "before-answering", "never"] = "after-answering"
    authority: str = ""


DEFAULT = Manners()
#: As kubelet 1.36 does (pkg/kubelet/cm/devicemanager/plugin/v1beta1): it dials and calls
#: GetDevicePluginOptions before it answers Register.
CURRENT = Manners(dial="before-answering", authority="localhost")
