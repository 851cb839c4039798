"""Inside a container: may it use the devices? Its device cgroup decides, and its /dev."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

from ..allocation.allocate_result import ENV_BUS_IDS
from .context import Context
from .findings import Finding, count, fail, ok, skip, warn

#: Seconds for opening all nodes; a driver may hang in its open.
OPEN_TIMEOUT = 4.0
_CAP_SYS_ADMIN = 21
#: Run by a process of its own, which a hanging driver may keep: prints the errno of
#: each open, 0 for one that worked. Nothing is read, written or asked of the driver.
_OPEN = """
import json, os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY))
        number = 0
    except OSError as error:
        number = error.errno
    print(json.dumps([path, number]), flush=True)
"""


def container(context: Context) -> Iterable[Finding]:
    if not context.environment.in_container:
        return [skip("the doctor runs on the host itself")]
    version = cgroup_version(context)
    privileged = bool(context.environment.capabilities >> _CAP_SYS_ADMIN & 1)
    rights = "privileged" if privileged else "without CAP_SYS_ADMIN"
    devices = context.environment.read("sys/fs/cgroup/devices/devices.list")
    if version == "v1" and devices is not None:
        what = "all devices" if devices.startswith("a ") else count(
            len(devices.splitlines()), "device rule"
        )  # fmt: skip
        return [ok(f"in a container, {rights}; cgroup v1 allows {what}")]
    if version == "v1":
        return [ok(f"in a container, {rights}; cgroup v1, its devices.list is not readable")]
    return [ok(f"in a container, {rights}; cgroup {version}, whose device rules are a program")]


def cgroup_version(context: Context) -> str:
    mounts = context.environment.read("proc/self/mountinfo") or ""
    types = {line.partition(" - ")[2].split(" ", 1)[0] for line in mounts.splitlines()}
    if "cgroup" in types:
        return "v1"
    return "v2" if "cgroup2" in types else "unknown"


def device_access(context: Context) -> Iterable[Finding]:
    """Opens each node that this container should be able to use."""
    if context.simulated:
        return [skip("simulated devices have no nodes of their own")]
    if not context.environment.in_container:
        return [skip("the doctor runs on the host itself: no device cgroup is in the way")]
    if not context.options.open_nodes:
        return [skip("not to be tried (--no-open)")]
    wanted = expected_nodes(context)
    if not wanted:
        return [skip("there are no device nodes to try")]
    seen = {path: str(context.on_host(path)) for path in wanted}
    answers = open_all(list(seen.values()))
    owner = bool(context.environment.variables.get(ENV_BUS_IDS))
    findings = [
        finding
        for path, local in seen.items()
        if (finding := _evaluate(path, answers.get(local), owner=owner)) is not None
    ]
    return findings or [ok(f"{count(len(wanted), 'device node')} can be opened")]


def expected_nodes(context: Context) -> Sequence[str]:
    """The nodes of all devices; in a pod with SPUs of its own, of those alone."""
    given = context.environment.variables.get(ENV_BUS_IDS, "")
    own = {part for part in given.split(",") if part}
    nodes = [
        node.host_path
        for device in context.state.snapshot.devices
        if device.present and (not own or device.id in own)
        for node in device.function.nodes
    ]
    nodes += [node.host_path for node in context.state.snapshot.control_nodes]
    return list(dict.fromkeys(nodes))


def open_all(paths: Sequence[str]) -> Mapping[str, int]:
    """The errno of each open, 0 where it worked; a path whose open hung is missing, and
    so are those after it."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _OPEN, *paths],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    # Not a context manager, whose end would wait for a process that cannot be killed.
    try:
        output, _ = process.communicate(timeout=OPEN_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        output = _what_came(process)
    return dict(json.loads(line) for line in output.splitlines() if line.endswith("]"))


def _what_came(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=1)[0]
    except subprocess.TimeoutExpired:
        return ""


def _evaluate(path: str, number: int | None, *, owner: bool) -> Finding | None:
    """`owner` is whether this container was given devices: only then must it work."""
    if number in (0, errno.EBUSY):  # taken by somebody, so it may be opened
        return None
    if number is None:
        text = "opening it hangs: the driver does not answer"
        return fail(text, "look at the kernel's log (dmesg); reboot the card", path)
    found = f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"
    match number:
        case errno.EPERM:
            text = f"{found}: the container's device cgroup does not allow it"
            if not owner:
                needless = "nothing in the plugin's own pod, which opens no device"
                return warn(text, f"{needless}; in others, ask for moffett.ai/spu", path)
            remedy = "restart the pod: its cgroup does not have the devices that it was given"
            return fail(text, remedy, path)
        case errno.EACCES:
            return fail(
                f"{found}: the node's own permissions, or SELinux, forbid it",
                "run as root or with the node's group; with SELinux, setsebool -P"
                " container_use_devices on",
                path,
            )
        case errno.ENXIO | errno.ENODEV:
            return fail(
                f"{found}: the driver has no device behind the node",
                "it is left over from before the card was rebooted: restart the pod; on the host,"
                " look at udev and the kernel's log",
                path,
            )
        case errno.ENOENT:
            text = f"{found}: this container's /dev has no such node"
            if not owner:
                needless = "nothing in the plugin's own pod, which takes nodes from sysfs"
                return warn(text, needless, path)
            return fail(text, "restart the pod: its /dev is as old as the pod is", path)
    return fail(found, "look at the kernel's log (dmesg)", path)
