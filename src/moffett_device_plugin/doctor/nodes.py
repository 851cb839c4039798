"""Device nodes: whose /dev this is, who may open them, and who has them open."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ..hardware.mounts import file_system_of
from .context import Context
from .findings import Finding, Findings, count, ok, skip, some, warn

NO_NODES = "no device node is visible here"
#: SOLA's own daemon, which manages the cards.
EXPECTED = ("mx-daemon",)


def dev(context: Context) -> Findings:
    """Whether this /dev is the host's. A container's is a copy made when it started."""
    folder = context.on_host("/dev")
    if _is_live(context):
        return ok(f"{folder} is the host's own")
    absent = [path for path in context.nodes if not context.on_host(path).exists()]
    missing = f", without {some(absent)}; the plugin takes nodes from sysfs" if absent else ""
    return ok(f"{folder} is a copy from when this container started{missing}")


def permissions(context: Context) -> Findings:
    """Containers run by others than root need more than the owner's permission."""
    modes = {path: status.st_mode for path, status in _seen(context).items()}
    closed = [path for path, mode in modes.items() if stat.S_IMODE(mode) & 0o006 != 0o006]
    if closed:
        return warn(
            "not every user may open it",
            "needed only for containers that do not run as root: a udev rule with"
            ' MODE="0666", or device_ownership_from_security_context in containerd or CRI-O',
            *closed,
        )
    return ok(f"every user may open {count(len(modes), 'node')}") if modes else skip(NO_NODES)


def char_links(context: Context) -> Findings:
    """`/dev/char/MAJ:MIN`: systemd resolves a container's device rules by these links when
    it reloads, and drops those that it cannot resolve."""
    if not _is_live(context):
        return skip("this /dev is not the host's, so its /dev/char is not visible")
    findings: list[Finding] = []
    seen = _seen(context)
    for path, status in seen.items():
        link = f"/dev/char/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        try:
            same = context.on_host(link).stat().st_rdev == status.st_rdev
        except OSError:
            same = False
        if not same:
            findings.append(
                warn(
                    "no link /dev/char/MAJ:MIN to it: with the systemd cgroup driver, containers"
                    " lose the device after systemctl daemon-reload",
                    "udevadm trigger makes the links of all nodes that udev knows; for another,"
                    " ln -s ../NAME /dev/char/MAJ:MIN at each boot (numbers: ls -l /dev)",
                    path,
                )
            )
    if findings:
        return findings
    text = f"{count(len(seen), 'node')} with a link in /dev/char"
    return ok(text) if seen else skip(NO_NODES)


def users(context: Context) -> Findings:
    """Processes outside Kubernetes that have a device open, which no scheduler knows."""
    proc = next((p for p in _procs(context) if _has_host_processes(p)), None)
    if proc is None:
        return skip("the host's processes are not visible here: run the doctor on the host")
    own = {node.host_path for device in context.devices for node in device.function.nodes}
    if not own:
        return skip(NO_NODES)
    findings: list[Finding] = []
    unread = 0
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            opened = {str(path.readlink()) for path in (folder / "fd").iterdir()} & own
            name = (folder / "comm").read_text(errors="replace").strip()
            in_pod = "kubepods" in (folder / "cgroup").read_text(errors="replace")
        except PermissionError:
            unread += 1
        except OSError:  # it has ended
            continue
        else:
            if opened and not in_pod and name not in EXPECTED:
                text = f"open in process {folder.name} ({name}), which is in no pod"
                remedy = "end the process, or exclude the device: pods get it as if it were free"
                findings += [warn(text, remedy, path) for path in sorted(opened)]
    if findings or not unread:
        return findings or ok("no process outside Kubernetes has a device open")
    text = f"{unread} process(es) cannot be examined"
    return skip(text, "run the doctor on the host as root")


def _procs(context: Context) -> tuple[Path, ...]:
    return (context.on_host("/proc"), context.environment.root / "proc")


def _has_host_processes(proc: Path) -> bool:
    """Kernel threads are in the first process namespace alone."""
    try:
        return (proc / "2/comm").read_text().strip() == "kthreadd"
    except OSError:
        return False


def _is_live(context: Context) -> bool:
    mounts = context.environment.read("proc/self/mountinfo") or ""
    return file_system_of(context.on_host("/dev"), mounts) == "devtmpfs"


def _seen(context: Context) -> Mapping[str, os.stat_result]:
    """The nodes that are visible here, by their path on the host."""
    found: dict[str, os.stat_result] = {}
    for path in context.nodes:
        try:
            found[path] = context.on_host(path).stat()
        except OSError:
            continue
    return found
