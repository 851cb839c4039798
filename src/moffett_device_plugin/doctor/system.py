"""The operating system: SELinux, inotify, the clock."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ..runtime.inotify import ENTRIES, Inotify
from .context import Context
from .findings import Findings, fail, ok, warn

#: SELinux types that may do what the plugin does.
UNCONFINED = ("spc_t", "unconfined_t", "unconfined_service_t", "kernel_t", "init_t")
_SYSCTL = "proc/sys/fs/inotify"


def selinux(context: Context) -> Findings:
    enforcing = context.environment.read("sys/fs/selinux/enforce")
    if enforcing is None:
        return ok("SELinux is off")
    if enforcing != "1":
        return ok("SELinux is permissive")
    label = (context.environment.read("proc/self/attr/current") or "").rstrip("\0")
    if any(f":{kind}:" in f"{label}:" for kind in UNCONFINED):
        return ok(f"SELinux is enforcing, and allows {label}")
    text = f"SELinux is enforcing, and this process is {label or 'of an unknown type'}"
    remedy = (
        "the plugin's pod needs privileged: true or seLinuxOptions type spc_t to connect to the"
        " kubelet; pods with SPUs need setsebool -P container_use_devices on"
    )
    return warn(text, remedy)


def inotify(context: Context) -> Findings:
    """Whether another instance is available: makes one, and closes it."""
    limits = ", ".join(
        f"{name} {context.environment.read(f'{_SYSCTL}/{name}') or 'unknown'}"
        for name in ("max_user_instances", "max_user_watches")
    )
    folder = context.kubelet_dir if context.kubelet_dir.is_dir() else Path(tempfile.gettempdir())
    try:
        one = Inotify()
        try:
            one.watch(folder, ENTRIES)
        finally:
            one.close()
    except OSError as error:
        text = f"{error.strerror} ({limits}): the daemon polls the kubelet's directory instead"
        sysctl = "fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288"
        return warn(text, f"sysctl -w {sysctl}")
    return ok(f"inotify works ({limits})")


def clock(context: Context) -> Findings:
    """A clock that is behind the files on its own disk is wrong."""
    newest = 0.0
    for path in (Path(__file__), context.kubelet_dir):
        with suppress(OSError):
            newest = max(newest, path.stat().st_mtime)
    behind = newest - time.time()
    if behind > 60:
        text = f"{behind:.0f} s behind files on this node"
        remedy = "set it (chronyc makestep, timedatectl): certificates and leases depend on it"
        return fail(text, remedy)
    return ok(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
