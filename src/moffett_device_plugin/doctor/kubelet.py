"""The kubelet: its directory, its socket, room to write, and the sockets of plugins."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from ..api import KUBELET_SOCKET
from .context import Context
from .findings import Findings, count, fail, ok, skip, warn

#: Less free than this, and the kubelet soon fails to write its checkpoint.
LEAST_FREE = 32 * 1024 * 1024
CONNECT_TIMEOUT = 2.0
_MOUNT = "mount the host's /var/lib/kubelet/device-plugins, as the manifests do"
_KUBELET = "on the host: systemctl status kubelet"


def directory(context: Context) -> Findings:
    folder = context.kubelet_dir
    try:
        status = folder.stat()
    except FileNotFoundError:
        return fail(
            f"{folder} does not exist",
            f"in a container: {_MOUNT}; on the host: install a kubelet, or set --kubelet-dir"
            " to where it is",
        )
    except OSError as error:
        return fail(f"{folder}: {error.strerror}", "run the doctor as root, as the daemon runs")
    if not stat.S_ISDIR(status.st_mode):
        return fail(f"{folder} is not a directory", "set --kubelet-dir to the directory")
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return ok(f"{folder} is writable")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        why, remedy = "mounted read-only", "mount it writable (no readOnly: true)"
    else:
        why, remedy = f"not writable for user {os.geteuid()}", "run it as root"
    return fail(f"{folder} is {why}: the plugin cannot make its socket", remedy)


def kubelet_socket(context: Context) -> Findings:
    path = context.kubelet_dir / KUBELET_SOCKET
    error = connect_error(path)
    match error:
        case None:
            return ok(f"a kubelet listens on {path}")
        case FileNotFoundError():
            remedy = (
                f"{_KUBELET} (it makes its socket 5 to 7 s after its start); in a container, the"
                f" wrong directory can be mounted: {_MOUNT}"
            )
        case ConnectionRefusedError():
            remedy = f"the kubelet has ended, its socket remains; {_KUBELET}"
        case PermissionError():
            remedy = "run it as root; with SELinux, as privileged or with a type that may connect"
        case _:
            remedy = "look at the kubelet's log on the host"
    return fail(f"{path}: {error.strerror or error}", remedy)


def connect_error(path: Path) -> OSError | None:
    """Connects and closes; None when a process listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(CONNECT_TIMEOUT)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error
    return None


def disk(context: Context) -> Findings:
    """A full disk: no sockets, and a checkpoint that the kubelet cannot write."""
    try:
        free = os.statvfs(context.kubelet_dir)
    except OSError as error:
        return skip(f"{context.kubelet_dir}: {error.strerror}")
    room = free.f_bavail * free.f_frsize
    text = f"{room >> 20} MiB are left on the disk of {context.kubelet_dir}"
    remedy = "free space on the host: without it the kubelet cannot write its checkpoint"
    if free.f_files and not free.f_favail:
        return fail(f"no inode is left for {context.kubelet_dir}", remedy)
    if room < LEAST_FREE:
        return (warn if room else fail)(text, remedy)
    return ok(text)


def stale_sockets(context: Context) -> Findings:
    """Sockets of plugins that have ended. A kubelet removes them when it starts."""
    found = sockets_in(context.kubelet_dir)
    findings = [
        warn(
            "no process listens: its plugin was killed or is restarting",
            "none if that plugin returns; the kubelet removes it at its next start",
            path.name,
        )
        for path in found
        if isinstance(connect_error(path), ConnectionRefusedError)
    ]
    if findings or not found:
        return findings or skip("no plugin socket")
    return ok(f"{count(len(found), 'plugin socket')}, each with a listener")


def sockets_in(folder: Path) -> list[Path]:
    """Those of plugins, by name; none where the directory cannot be read."""
    try:
        return sorted(p for p in folder.iterdir() if p.name != KUBELET_SOCKET and p.is_socket())
    except OSError:
        return []
