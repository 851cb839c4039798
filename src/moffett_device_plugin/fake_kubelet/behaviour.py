"""How a kubelet treats the plugins that register: its version's way, or a fault's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ends = Literal["last", "any", "one"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The defaults are those of kubelet 1.20, as observed.

    `register`: what happens to a Register that comes in. `dial`: when the plugin is
    dialled back. `authority`: what its calls carry as `:authority`; empty for the
    socket's path, as before 1.26. `ends`: what the end of a connection means when a
    resource has several: nothing, unless it is that of who registered `last`; whichever
    it is (`any`), that the resource's client, if it has one, is hung up on: the last one
    that registered, unless a registration failed since; or the loss of that `one`, in whose
    place another takes the calls, and whose socket is refused while it is connected.
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
