"""The driver, the device nodes that it made, and whose /dev this process sees."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from ..hardware.mounts import file_system_of
from .bus import NO_CARDS
from .context import Context
from .findings import Finding, count, fail, ok, skip, some, warn

#: A driver that hands the device to a virtual machine.
PASS_THROUGH = frozenset({"vfio-pci", "pci-stub"})


def driver(context: Context) -> Iterable[Finding]:
    present = [device for device in context.state.snapshot.devices if device.present]
    if not present:
        return [skip(NO_CARDS)]
    findings: list[Finding] = []
    for device in present:
        name = device.function.driver
        if name is None:
            findings.append(
                fail(
                    "no driver is bound to it",
                    "load SOLA's driver on the host and look at the kernel's log (dmesg);"
                    " after a kernel update, install SOLA again",
                    device.id,
                )
            )
        elif name in PASS_THROUGH:
            findings.append(
                fail(
                    f"{name} is bound to it: it is set aside for a virtual machine",
                    f"unbind it from {name}, or leave it out",
                    device.id,
                )
            )
    names = {device.function.driver for device in present} - {None}
    if findings:
        return findings
    if len(names) > 1:
        text = f"devices have different drivers: {some(sorted(map(str, names)))}"
        return [warn(text, "let SOLA's driver have all of them")]
    version = context.state.snapshot.driver_version
    told = f", version {version}" if version else ""
    return [ok(f"{names.pop()} is bound to {count(len(present), 'device')}{told}")]


def nodes(context: Context) -> Iterable[Finding]:
    """Every device has a character device, and the host's /dev has its node."""
    present = [device for device in context.state.snapshot.devices if device.present]
    if not present:
        return [skip(NO_CARDS)]
    findings: list[Finding] = []
    for device in present:
        if not device.function.nodes:
            findings.append(
                fail(
                    "sysfs shows no character device for it",
                    "look at the kernel's log: the driver is bound and failed, or is not bound",
                    device.id,
                )
            )
        elif device.function.missing_nodes:
            findings.append(
                fail(
                    f"{', '.join(device.function.missing_nodes)} is missing from the host's /dev",
                    "look at udev (udevadm info, journalctl -u systemd-udevd); udevadm trigger",
                    device.id,
                )
            )
    if findings:
        return findings
    number = sum(len(device.function.nodes) for device in present)
    shared = len(context.state.snapshot.control_nodes)
    text = f"{count(number, 'node')} of {count(len(present), 'device')}"
    return [ok(text + (f", and {count(shared, 'node')} that all share" if shared else ""))]


def dev(context: Context) -> Iterable[Finding]:
    """Whether this /dev is the host's. A container's is a copy made when it started."""
    if context.simulated:
        return [skip("simulated devices have no nodes of their own")]
    wanted = [node for device in context.state.snapshot.devices for node in device.function.nodes]
    if not wanted:
        return [skip("there are no device nodes to look for")]
    folder = context.on_host("/dev")
    mounts = context.environment.read("proc/self/mountinfo") or ""
    if file_system_of(folder, mounts) == "devtmpfs":
        return [ok(f"{folder} is the host's own: nodes come and go in it")]
    absent = [node.host_path for node in wanted if not context.on_host(node.host_path).exists()]
    if not absent:
        text = f"{folder} is a copy and has all {count(len(wanted), 'node')} for the moment"
        return [ok(text)]
    return [
        warn(
            f"{folder} is a copy made when this container started, without {some(absent)}",
            "nothing for the plugin, which takes nodes from sysfs; to see the host's own here,"
            " mount its / and set SPU_HOST_ROOT to where",
        )
    ]


def node_permissions(context: Context) -> Iterable[Finding]:
    """Containers run by others than root need more than the owner's permission."""
    if context.simulated:
        return [skip("simulated devices have no nodes of their own")]
    closed: list[str] = []
    looked_at = 0
    for device in context.state.snapshot.devices:
        for node in device.function.nodes:
            try:
                mode = context.on_host(node.host_path).stat().st_mode
            except OSError:
                continue
            looked_at += 1
            if stat.S_IMODE(mode) & 0o006 != 0o006:
                closed.append(node.host_path)
    if not looked_at:
        return [skip("no device node is to be seen from here")]
    if closed:
        return [
            warn(
                f"{some(closed)}: not for every user",
                "nothing for containers that run as root; for others, a udev rule with"
                ' MODE="0666", or device_ownership_from_security_context in containerd or CRI-O',
            )
        ]
    return [ok(f"every user may open {count(looked_at, 'node')}")]


def firmware(context: Context) -> Iterable[Finding]:
    """mx-smi lists a device from when its firmware is loaded."""
    present = [device for device in context.state.snapshot.devices if device.present]
    if not present:
        return [skip(NO_CARDS)]
    waiting = [device for device in present if device.listed is False]
    if waiting:
        return [
            fail(
                "mx-smi works and does not list it: its firmware is not loaded",
                "wait 20 s after boot; then on the host: systemctl status mx-daemon,"
                " mx-mft status N (Mode: Bootloader is firmware not loaded)",
                device.id,
            )
            for device in waiting
        ]
    if all(device.listed is None for device in present):
        return [skip("only mx-smi can tell, and it has not answered")]
    versions = sorted({d.firmware_version for d in present if d.firmware_version})
    return [ok(f"loaded on {count(len(present), 'device')}: {some(versions) or 'no version'}")]
