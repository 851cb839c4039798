"""All checks, from the bottom up. To add one: write it in the file of its layer, and
list it here. Its name is for scripts and never changes its meaning (docs/doctor.md)."""

from __future__ import annotations

from collections.abc import Sequence

from ..hardware.mxsmi import ALL_FIELDS, CORE_FIELDS
from ..hardware.smi_command import FIELD_STYLES
from . import bus, configuration, container, driver, health, kubelet, plugin, pods, system, tools
from .context import Context
from .findings import Check

#: mx-smi may have to be asked in all these ways, each within its own time-out.
_FORMS = len(FIELD_STYLES) * len((ALL_FIELDS, CORE_FIELDS))


def all_checks(context: Context) -> Sequence[Check]:
    return (
        Check("cards", "bus", bus.cards),
        Check("complete-cards", "bus", bus.complete_cards),
        Check("config-space", "bus", bus.answers),
        Check("links", "bus", bus.links),
        Check("pcie-errors", "bus", bus.errors),
        Check("driver", "driver", driver.driver),
        Check("device-nodes", "driver", driver.nodes),
        Check("dev", "driver", driver.dev),
        Check("node-permissions", "driver", driver.node_permissions),
        Check("firmware", "driver", driver.firmware),
        Check("sola", "tools", tools.sola_version),
        Check("sola-agrees", "tools", tools.sola_agrees),
        Check("mx-smi", "tools", tools.mx_smi, _FORMS * context.hardware.smi_timeout + 2),
        Check("health", "devices", health.health_statuses),
        Check("kubelet-dir", "kubelet", kubelet.directory),
        Check("kubelet-disk", "kubelet", kubelet.disk),
        Check("kubelet-socket", "kubelet", kubelet.kubelet_socket),
        Check("stale-sockets", "kubelet", kubelet.stale_sockets, 10.0),
        Check("plugin", "plugin", plugin.plugin, 15.0),
        Check("registration", "plugin", plugin.registration),
        Check("other-plugins", "plugin", plugin.other_plugins, 10.0),
        Check("cdi", "plugin", plugin.cdi),
        Check("pod-resources", "pods", pods.pod_resources),
        Check("held-devices", "pods", pods.held_devices),
        Check("container", "container", container.container),
        Check("device-access", "container", container.device_access, 8.0),
        Check("selinux", "system", system.selinux),
        Check("inotify", "system", system.inotify),
        Check("clock", "system", system.clock),
        Check("settings", "configuration", configuration.settings),
        Check("variables", "configuration", configuration.variables),
        Check("daemon", "configuration", configuration.daemon),
    )
