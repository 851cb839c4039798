"""What a bug report needs, as texts by file name. Nothing is redacted here."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import stat
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..devices.description import describe
from ..hardware import sysfs
from ..hardware.mxsmi import ALL_FIELDS
from ..hardware.process import CommandError, Runner, tool_environment
from ..hardware.smi_command import FIELD_STYLES, launch_of
from ..podresources.client import Holder
from .configuration import PREFIX
from .container import cgroup_version
from .context import Context
from .findings import Finding
from .report import as_json

#: What sysfs shows of a function, in files of one line or a few.
ATTRIBUTES = (
    "uevent", "vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision",
    "numa_node", "local_cpulist", "enable", "power_state", "current_link_speed",
    "current_link_width", "max_link_speed", "max_link_width", "aer_dev_correctable",
    "aer_dev_nonfatal", "aer_dev_fatal",
)  # fmt: skip
#: The part of configuration space that all devices have; serials come after it.
CONFIG_HEADER = 64
#: Mounts that concern devices and the kubelet.
_MOUNTS = ("/dev", "/sys", "/proc", "kubelet", "device-plugins", "pod-resources", "sola")
_PACKAGES = ("h11", "hpack", "prometheus-client", "protobuf", "PyYAML", "rich")
_LINES = 2000
_CAP_SYS_CHROOT = 18
_SMI_TIMEOUT = 10.0  # seconds; the bundle as a whole has a deadline


def gather(
    context: Context, findings: Sequence[Finding], log: Path | None
) -> Iterator[tuple[str, str]]:
    """One file after the other, the findings first: they matter most."""
    yield "doctor.json", as_json(findings)
    yield "versions.json", json.dumps(_versions(context), indent=2)
    devices = [describe(device, context.state) for device in context.devices]
    yield "devices.json", json.dumps(devices, indent=2)
    yield "settings.json", json.dumps(_settings(context), indent=2, default=sorted)
    yield "holders.json", json.dumps(_holders(context), indent=2)
    yield "kubelet-dir.txt", _listing(context.kubelet_dir)
    yield "mounts.txt", _mounts(context)
    yield "os-release.txt", _text(context.on_host("/etc/os-release"))
    yield "modules.txt", _modules(context)
    if not context.simulated:
        yield from _sysfs(context)
        yield from _mx_smi(context)
    if log is not None:
        yield "log.txt", last_lines(log)


def _versions(context: Context) -> dict[str, Any]:
    kernel, snapshot = platform.uname(), context.state.snapshot
    installed = {d.name: d.version for d in metadata.distributions() if d.name in _PACKAGES}
    return {
        "plugin": __version__,
        "python": sys.version.split()[0],
        "packages": installed,
        "kernel": f"{kernel.release} {kernel.version} {kernel.machine}",
        "sola": {"mx-smi": snapshot.smi_sola_version, "installed": snapshot.installed_sola_version},
        "driver": snapshot.driver_version,
        "in_container": context.environment.in_container,
        "capabilities": f"{context.environment.capabilities:016x}",
        "uid": context.environment.uid,
        "cgroup": cgroup_version(context),
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _settings(context: Context) -> dict[str, Any]:
    """Every setting with where it comes from. Of the environment, `SPU_*` alone."""
    environment = context.environment.variables
    return {
        "effective": {
            name: {"value": raw.text, "from": raw.origin} for name, raw in context.given.items()
        },
        "variables": {n: v for n, v in sorted(environment.items()) if n.startswith(PREFIX)},
        "resources": [asdict(resource) for resource in context.resources],
        "wrong": [str(error) for error in context.wrong_settings],
    }


def _holders(context: Context) -> dict[str, Any]:
    def names(holders: Sequence[Holder]) -> list[str]:
        return [f"{h.namespace}/{h.pod}/{h.container}" for h in holders]

    held = {
        resource: {id: names(holders) for id, holders in by_id.items()}
        for resource, by_id in context.held.by_resource.items()
    }
    return {"why_not": context.held.why_not, "held": held}


def _listing(folder: Path) -> str:
    """As `ls -l` shows it: names, types, permissions, sizes and times."""
    lines: list[str] = []
    try:
        for path in sorted(folder.iterdir()):
            status = path.lstat()
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.st_mtime))
            owner = f"{status.st_uid}:{status.st_gid}"
            mode = stat.filemode(status.st_mode)
            lines.append(f"{mode} {owner} {status.st_size:>10} {when} {path.name}")
    except OSError as error:
        lines.append(f"{error.filename}: {error.strerror}")
    return "\n".join(lines) + "\n"


def _mounts(context: Context) -> str:
    lines = (context.environment.read("proc/self/mountinfo") or "").splitlines()
    points = [(line.split(" ")[4:5] or [""])[0] for line in lines]
    return "\n".join(
        line
        for line, point in zip(lines, points, strict=True)
        if point == "/" or any(part in point for part in _MOUNTS)
    )


def _modules(context: Context) -> str:
    """The lines of the bound drivers' modules."""
    drivers = {d.function.driver for d in context.devices if d.function.driver}
    links = (f"{context.sys}/bus/pci/drivers/{name}/module" for name in drivers)
    names = {name.replace("-", "_") for name in drivers} | set(map(sysfs.link_name, links))
    modules = _text(Path("/proc/modules")).splitlines()
    return "\n".join(line for line in modules if line.split(" ", 1)[0] in names) + "\n"


def _sysfs(context: Context) -> Iterator[tuple[str, str]]:
    for device in context.devices:
        folder = context.sys / "bus/pci/devices" / device.id
        lines = [f"path: {os.path.realpath(folder)}"]
        for name in ATTRIBUTES:
            value = sysfs.read_text(f"{folder}/{name}")
            text = "(absent)" if value is None else value.replace("\n", "\n    ")
            lines.append(f"{name}: {text}")
        lines.append(f"driver: {sysfs.link_name(f'{folder}/driver')}")
        header = (sysfs.read(f"{folder}/config") or b"")[:CONFIG_HEADER]
        rows = (header[at : at + 16].hex(" ") for at in range(0, len(header), 16))
        lines += ["config:", *(f"    {row}" for row in rows)]
        yield f"sysfs/{device.id}.txt", "\n".join(lines) + "\n"


def _mx_smi(context: Context) -> Iterator[tuple[str, str]]:
    """In each form in which the daemon asks it, until it has to be killed."""
    can_chroot = bool(context.environment.capabilities >> _CAP_SYS_CHROOT & 1)
    launch = launch_of(context.hardware.host_root, context.hardware.smi, can_chroot=can_chroot)
    if launch is None:
        return
    root = launch.chroot or "/"

    def change_root() -> None:
        os.chroot(root)
        os.chdir("/")

    forms = [("select", *style(ALL_FIELDS)) for style in FIELD_STYLES]
    for number, words in enumerate((("query",), *forms)):
        command = Runner().run(
            (*launch.argv, *words),
            min(context.hardware.smi_timeout, _SMI_TIMEOUT),
            env=tool_environment(),
            before_exec=change_root if launch.chroot else None,
        )
        name = f"mx-smi/select{number}.txt" if number else "mx-smi/query.txt"
        try:
            finished = asyncio.run(command)
        except CommandError as error:
            yield name, f"# {' '.join(words)}: {error}\n"
            return
        yield name, f"# {' '.join(words)}: exit status {finished.status}\n{finished.output}"


def last_lines(path: Path, most: int = _LINES, size: int = 1024 * 1024) -> str:
    """The end of a log of any length, in at most `size` characters."""
    try:
        with path.open(errors="replace") as file:
            text = "".join(deque(file, most))
    except OSError as error:
        return f"{path}: {error.strerror or error}\n"
    if len(text) <= size:
        return text
    # Half a line could be half a secret, which is not recognised.
    return text[-size:].partition("\n")[2]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}\n"
