"""What a bug report needs, as texts by file name. Nothing is redacted here."""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..hardware import sysfs
from ..hardware.mxsmi import ALL_FIELDS
from ..hardware.process import CommandError, Runner, tool_environment
from ..hardware.smi_command import FIELD_STYLES, launch_of
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


def gather(
    context: Context, findings: Sequence[Finding], log: Path | None
) -> Iterator[tuple[str, str]]:
    """One file after the other, the findings first: they matter most."""
    yield "doctor.json", as_json(findings)
    yield "versions.json", json.dumps(_versions(context), indent=2)
    yield "devices.json", json.dumps(_devices(context), indent=2, default=sorted)
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


def _devices(context: Context) -> list[dict[str, Any]]:
    statuses = context.state.health_statuses
    return [{**asdict(d), "health": asdict(statuses[d.id])} for d in context.devices]


def _versions(context: Context) -> dict[str, Any]:
    kernel = platform.uname()
    return {
        "plugin": __version__,
        "python": sys.version.split()[0],
        "packages": {name: _installed(name) for name in _PACKAGES},
        "kernel": f"{kernel.release} {kernel.version} {kernel.machine}",
        "sola": {
            "mx-smi": context.state.snapshot.smi_sola_version,
            "installed": context.state.snapshot.installed_sola_version,
        },
        "driver": context.state.snapshot.driver_version,
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
            name: {"value": given.text, "from": given.origin}
            for name, given in context.given.items()
        },
        "variables": {n: v for n, v in sorted(environment.items()) if n.startswith(PREFIX)},
        "resources": [asdict(resource) for resource in context.resources],
        "wrong": [str(error) for error in context.wrong_settings],
    }


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _holders(context: Context) -> dict[str, Any]:
    return {
        "why_not": context.held.why_not,
        "units": {
            resource: {
                unit: [f"{h.namespace}/{h.pod}/{h.container}" for h in holders]
                for unit, holders in units.items()
            }
            for resource, units in context.held.units.items()
        },
    }


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
    mounts = context.environment.read("proc/self/mountinfo") or ""
    chosen = [
        line
        for line in mounts.splitlines()
        if len(words := line.split(" ")) > 4
        and (words[4] == "/" or any(part in words[4] for part in _MOUNTS))
    ]
    return "\n".join(chosen) + "\n"


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
            context.hardware.smi_timeout,
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
    """The end of a log of any length."""
    try:
        with path.open("rb", buffering=0) as file:
            data, cut = _end_of(file, size)
    except OSError as error:
        return f"{path}: {error.strerror or error}\n"
    if cut:  # half a line could be half a secret, which is not recognised
        data = data.partition(b"\n")[2]
    return "\n".join(data.decode(errors="replace").splitlines()[-most:]) + "\n"


def _end_of(file: io.FileIO, size: int) -> tuple[bytes, bool]:
    """The last `size` bytes, also of a pipe, and whether there were more."""
    if file.seekable():
        start = max(0, file.seek(0, os.SEEK_END) - size)
        file.seek(start)
        return file.read(size), start > 0
    data, cut = b"", False
    while part := file.read(65_536):
        data, cut = (data + part)[-size:], cut or len(data) + len(part) > size
    return data, cut


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}\n"
