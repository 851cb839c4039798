"""The kubelet: its directory, its socket, and room to write."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from ..api import KUBELET_SOCKET
from .context import Context
from .findings import Finding, count, fail, ok, skip, warn

#: Less free than this, and the kubelet soon fails to write its checkpoint.
LEAST_FREE = 32 * 1024 * 1024
CONNECT_TIMEOUT = 2.0
_MOUNT = "mount the host's /var/lib/kubelet/device-plugins, as the manifests do"


def directory(context: Context) -> Iterable[Finding]:
    folder = context.kubelet_dir
    try:
        status = folder.stat()
    except FileNotFoundError:
        return [
            fail(
                f"{folder} is not there",
                f"in a container: {_MOUNT}; on the host: is a kubelet installed, and is its"
                " --root-dir another (then set --kubelet-dir)?",
            )
        ]
    except OSError as error:
        remedy = "run the doctor as root, as the daemon runs"
        return [fail(f"{folder}: {error.strerror}", remedy)]
    if not stat.S_ISDIR(status.st_mode):
        return [fail(f"{folder} is not a directory", "name the directory with --kubelet-dir")]
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        why = "it is mounted read-only" if read_only else f"user {os.geteuid()} may not write there"
        remedy = "mount it writable (no readOnly: true)" if read_only else "run it as root"
        return [fail(f"{folder}: {why}, so that the plugin cannot make its socket", remedy)]
    return [ok(f"{folder} is there and can be written to")]


def kubelet_socket(context: Context) -> Iterable[Finding]:
    path = context.kubelet_dir / KUBELET_SOCKET
    if not context.kubelet_dir.is_dir():
        return [skip(f"there is no {context.kubelet_dir}")]
    error = connect_error(path)
    if error is None:
        return [ok(f"somebody listens on {path}")]
    match error:
        case FileNotFoundError():
            remedy = (
                "on the host: systemctl status kubelet (it makes its socket 5 to 7 s after its"
                f" start); in a container, the mount can be of another directory: {_MOUNT}"
            )
        case ConnectionRefusedError():
            remedy = "the kubelet has ended and left it behind: systemctl status kubelet"
        case PermissionError():
            remedy = "run it as root; with SELinux, as privileged or with a type that may connect"
        case _:
            remedy = "look at the kubelet's log on the host"
    return [fail(f"{path}: {error.strerror or error}", remedy)]


def connect_error(path: Path) -> OSError | None:
    """Connects and hangs up; None when somebody listened."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(CONNECT_TIMEOUT)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error
    return None


def disk(context: Context) -> Iterable[Finding]:
    """A full disk: no sockets, and a checkpoint that the kubelet cannot write."""
    try:
        free = os.statvfs(context.kubelet_dir)
    except OSError as error:
        return [skip(f"{context.kubelet_dir}: {error.strerror}")]
    room = free.f_bavail * free.f_frsize
    remedy = "make room on the host: without it the kubelet can write no checkpoint"
    if free.f_files and not free.f_favail:
        return [fail(f"no inode is left for {context.kubelet_dir}", remedy)]
    if not room:
        return [fail(f"the disk of {context.kubelet_dir} is full", remedy)]
    mib = room // (1024 * 1024)
    if room < LEAST_FREE:
        return [warn(f"{mib} MiB are left on the disk of {context.kubelet_dir}", remedy)]
    return [ok(f"{mib} MiB are left on the disk of {context.kubelet_dir}")]


def stale_sockets(context: Context) -> Iterable[Finding]:
    """Sockets of plugins that have ended. A kubelet removes them when it starts."""
    try:
        found = sockets_in(context.kubelet_dir)
    except OSError as error:
        return [skip(f"{context.kubelet_dir}: {error.strerror}")]
    others = [path for path in found if path.name != KUBELET_SOCKET]
    stale = [p for p in others if isinstance(connect_error(p), ConnectionRefusedError)]
    if stale:
        return [
            warn(
                "nobody listens on it: its plugin was killed or is restarting",
                "nothing if that plugin comes back; the kubelet removes it at its next start",
                path.name,
            )
            for path in stale
        ]
    return [ok(f"{count(len(others), 'plugin socket')}, none of them left behind")]


def sockets_in(folder: Path) -> list[Path]:
    """By name. Raises OSError."""
    return sorted(path for path in folder.iterdir() if path.is_socket())
