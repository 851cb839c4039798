"""How a kubelet treats the plugins that register: as one of its versions, or with a fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ends = Literal["last", "any", "one"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The defaults are those of kubelet 1.20, as observed.

    `register`: how a Register call is treated. `dial`: when the kubelet connects to the
    plugin. `authority`: the `:authority` of its calls; empty for the socket's path, as
    before 1.26. `ends`: what follows when a connection ends and the resource has several:
    `last`: nothing, unless it is the connection of the plugin that registered last, whose
    devices are unhealthy then; `any`: the devices are unhealthy, and the connection of the
    plugin that registered last is closed, unless a registration failed since; `one`: another
    connection takes over. With `one`, a socket that is connected already cannot register
    again.
    """

    register: Literal["answer", "refuse", "hang", "die"] = "answer"
    dial: Literal["after-answering", "before-answering", "never"] = "after-answering"
    authority: str = ""
    ends: Ends = "last"


DEFAULT = Behaviour()
#: As kubelets from 1.26 to 1.36 (pkg/kubelet/cm/devicemanager/plugin/v1beta1): they dial
#: and call GetDevicePluginOptions before they answer Register.
UNTIL_1_36 = Behaviour(dial="before-answering", authority="localhost", ends="any")
#: As kubelet 1.37, as observed.
CURRENT = Behaviour(dial="before-answering", authority="localhost", ends="one")
