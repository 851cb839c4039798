"""Inside a container: whether its device cgroup and its /dev let it use the devices."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..allocation.allocate_result import ENV_BUS_IDS
from .context import Context
from .findings import Finding, Findings, count, fail, ok, skip

ON_HOST = "the doctor runs on the host itself"
#: Seconds for opening all nodes; a driver may block in its open.
OPEN_TIMEOUT = 4.0
_CAP_SYS_ADMIN = 21
#: Run by a process of its own, which a driver may block: prints the errno of
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


def container(context: Context) -> Findings:
    if not context.environment.in_container:
        return skip(ON_HOST)
    privileged = context.environment.capabilities >> _CAP_SYS_ADMIN & 1
    rights = "privileged" if privileged else "without CAP_SYS_ADMIN"
    version = cgroup_version(context)
    allowed = context.environment.read("sys/fs/cgroup/devices/devices.list")
    rules = ""
    if version == "v1" and allowed is not None:
        every = allowed.startswith("a ")
        rules = " allows " + (
            "all devices" if every else count(len(allowed.splitlines()), "device rule")
        )
    return ok(f"in a container, {rights}; cgroup {version}{rules}")


def cgroup_version(context: Context) -> str:
    mounts = context.environment.read("proc/self/mountinfo") or ""
    types = {line.partition(" - ")[2].split(" ", 1)[0] for line in mounts.splitlines()}
    if "cgroup" in types:
        return "v1"
    return "v2" if "cgroup2" in types else "unknown"


def device_access(context: Context) -> Findings:
    """Opens each node that this container should be able to use."""
    if not context.environment.in_container:
        return skip(ON_HOST)
    if not context.options.open_nodes:
        return skip("not tried (--no-open)")
    wanted = expected_nodes(context)
    if not wanted:
        return skip("no device node to open")
    visible = {path: str(context.on_host(path)) for path in wanted}
    results = open_all(list(visible.values()))
    owner = bool(context.environment.variables.get(ENV_BUS_IDS))
    findings = [
        finding
        for path, local in visible.items()
        if (finding := _evaluate(path, results.get(local), owner=owner)) is not None
    ]
    return findings or ok(f"{count(len(wanted), 'device node')} can be opened")


def expected_nodes(context: Context) -> Sequence[str]:
    """The nodes of all devices; in a pod with SPUs of its own, of those alone."""
    own = set(filter(None, context.environment.variables.get(ENV_BUS_IDS, "").split(",")))
    others = {
        node.host_path
        for device in context.devices
        if not device.present or (own and device.id not in own)
        for node in device.function.nodes
    }
    return [path for path in context.nodes if path not in others]


def open_all(paths: Sequence[str]) -> Mapping[str, int]:
    """The errno of each open, 0 where it worked; a path whose open blocks is missing, and
    so are those after it."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _OPEN, *paths],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    # Not a context manager, whose end would wait for a process that cannot be killed.
    output = ""
    for timeout in (OPEN_TIMEOUT, 1):
        try:
            output, _ = process.communicate(timeout=timeout)
            break
        except subprocess.TimeoutExpired:
            process.kill()
    return dict(json.loads(line) for line in output.splitlines() if line.endswith("]"))


_DMESG = "look at the kernel's log (dmesg)"
#: What an error of open means, and what to do about it in a container with devices.
_ERRORS: Mapping[int, tuple[str, str]] = {
    errno.EPERM: (
        "the container's device cgroup does not allow it",
        "restart the pod: its cgroup lost a device that it was given; see char-links",
    ),
    errno.EACCES: (
        "the node's permissions, or SELinux, do not allow it",
        "run as root or with the node's group; with SELinux, setsebool -P container_use_devices on",
    ),
    errno.ENXIO: (
        "the driver has no device behind the node",
        "the node is from before a reboot of the card: restart the pod; on the host, check udev"
        " and the kernel's log",
    ),
    errno.ENOENT: (
        "no such node in this container's /dev",
        "restart the pod: its /dev was made when it started",
    ),
}


def _evaluate(path: str, number: int | None, *, owner: bool) -> Finding | None:
    """`owner` is whether this container was given devices: only then must it work."""
    if number in (0, errno.EBUSY):  # in use, so it may be opened
        return None
    if number is None:
        return fail("open blocks: the driver does not respond", f"{_DMESG}; reboot the card", path)
    error = os.strerror(number)
    if not owner and number in (errno.EPERM, errno.ENOENT):
        return ok(f"not given to this container ({error}): the plugin's own pod needs none", path)
    meaning, remedy = _ERRORS.get(errno.ENXIO if number == errno.ENODEV else number, ("", _DMESG))
    text = f"{error} ({errno.errorcode.get(number, number)})"
    return fail(f"{text}: {meaning}" if meaning else text, remedy, path)
