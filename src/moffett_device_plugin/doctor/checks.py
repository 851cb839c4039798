"""All checks, from the bottom up. To add one: write it in the file of its layer, and
list it here. Its name is for scripts and never changes its meaning (docs/doctor.md)."""

from __future__ import annotations

from . import configuration, container, dra, hardware, kubelet, nodes, plugin, pods, system
from .findings import Check

ALL_CHECKS = (
    Check("cards", "hardware", hardware.cards),
    Check("complete-cards", "hardware", hardware.complete_cards, needs=("devices",)),
    Check("pcie-errors", "hardware", hardware.pcie_errors, needs=("devices",)),
    Check("driver", "hardware", hardware.driver, needs=("devices",)),
    Check("sola", "hardware", hardware.sola),
    Check("mx-smi", "hardware", hardware.mx_smi),
    Check("health", "hardware", hardware.health, needs=("devices",)),
    Check("dev", "device nodes", nodes.dev, needs=("nodes",)),
    Check("node-permissions", "device nodes", nodes.permissions, needs=("nodes",)),
    Check("char-links", "device nodes", nodes.char_links, needs=("nodes",)),
    Check("device-users", "device nodes", nodes.users, 15.0, needs=("nodes",)),
    Check("kubelet-dir", "kubelet", kubelet.directory),
    Check("kubelet-disk", "kubelet", kubelet.disk, needs=("kubelet-dir",)),
    Check("kubelet-socket", "kubelet", kubelet.kubelet_socket, needs=("kubelet-dir",)),
    Check("stale-sockets", "kubelet", kubelet.stale_sockets, 10.0, needs=("kubelet-dir",)),
    Check("plugin", "plugin", plugin.plugin, 15.0, needs=("devices", "kubelet-dir")),
    Check("registration", "plugin", plugin.registration, needs=("devices", "kubelet-dir")),
    Check("other-plugins", "plugin", plugin.other_plugins, 10.0, needs=("kubelet-dir",)),
    Check("cdi", "plugin", plugin.cdi, needs=("devices",)),
    Check("dra", "plugin", dra.dra),
    Check("pod-resources", "pods", pods.pod_resources),
    Check("held-devices", "pods", pods.held_devices),
    Check("container", "container", container.container),
    Check("device-access", "container", container.device_access, 8.0, needs=("nodes",)),
    Check("selinux", "system", system.selinux),
    Check("inotify", "system", system.inotify),
    Check("clock", "system", system.clock),
    Check("settings", "configuration", configuration.settings),
    Check("resources", "configuration", configuration.resources, needs=("devices",)),
    Check("variables", "configuration", configuration.variables),
    Check("daemon", "configuration", configuration.daemon),
)
