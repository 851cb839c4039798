"""What a bug report needs, as texts by file name. Nothing here is redacted yet."""

from __future__ import annotations

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
from ..devices.description import describe
from ..hardware import sysfs
from ..hardware.mxsmi import ALL_FIELDS
from ..hardware.smi_command import FIELD_STYLES
from .configuration import PREFIX
from .container import cgroup_version
from .context import Context
from .findings import Finding
from .report import as_json
from .tools import STYLES, ask, launch

#: What sysfs tells of a function, in files of one line or a few.
ATTRIBUTES = (
    "uevent", "vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision",
    "numa_node", "local_cpulist", "enable", "power_state", "current_link_speed",
    "current_link_width", "max_link_speed", "max_link_width", "aer_dev_correctable",
    "aer_dev_nonfatal", "aer_dev_fatal",
)  # fmt: skip
#: The part of configuration space that all devices have; serials come after it.
CONFIG_HEADER = 64
#: Mounts that bear on devices and the kubelet.
_MOUNTS = ("/dev", "/sys", "/proc", "kubelet", "device-plugins", "pod-resources", "sola")
_PACKAGES = ("h11", "hpack", "prometheus-client", "protobuf", "PyYAML", "rich")
_LINES = 2000


def gather(
    context: Context, findings: Sequence[Finding], log: Path | None
) -> Iterator[tuple[str, str]]:
    """One file after the other, the findings first: they matter most."""
    yield "doctor.json", as_json(findings)
    yield "versions.json", json.dumps(_versions(context), indent=2)
    devices = [describe(device, context.state) for device in context.state.snapshot.devices]
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
        "in_container": context.place.in_container,
        "capabilities": f"{context.place.capabilities:016x}",
        "uid": context.place.uid,
        "cgroup": cgroup_version(context),
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _settings(context: Context) -> dict[str, Any]:
    """Every setting with where it comes from. Of the environment, `SPU_*` alone: nothing
    else of it is ours to show."""
    environment = context.place.environment
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
    """As `ls -l` shows it: names, kinds, permissions, sizes and times."""
    lines: list[str] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return f"{folder}: {error.strerror}\n"
    for path in entries:
        try:
            status = path.lstat()
        except OSError as error:
            lines.append(f"{path.name}: {error.strerror}")
            continue
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.st_mtime))
        mode = stat.filemode(status.st_mode)
        owner = f"{status.st_uid}:{status.st_gid}"
        lines.append(f"{mode} {owner} {status.st_size:>10} {when} {path.name}")
    return "\n".join(lines) + "\n"


def _mounts(context: Context) -> str:
    mounts = context.place.read("proc/self/mountinfo") or ""
    chosen = [
        line
        for line in mounts.splitlines()
        if len(words := line.split(" ")) > 4
        and (words[4] == "/" or any(part in words[4] for part in _MOUNTS))
    ]
    return "\n".join(chosen) + "\n"


def _modules(context: Context) -> str:
    """The lines of the drivers that are bound, and of what they depend on by name."""
    bound = {d.function.driver for d in context.state.snapshot.devices if d.function.driver}
    names = {name.replace("-", "_") for name in bound}
    names |= {
        os.path.basename(os.path.realpath(context.sys / f"bus/pci/drivers/{name}/module"))  # noqa: PTH119
        for name in bound
    }
    modules = _text(Path("/proc/modules")).splitlines()
    return "\n".join(line for line in modules if line.split(" ", 1)[0] in names) + "\n"


def _sysfs(context: Context) -> Iterator[tuple[str, str]]:
    for device in context.state.snapshot.devices:
        folder = context.sys / "bus/pci/devices" / device.id
        lines = [f"path: {os.path.realpath(folder)}"]
        for name in ATTRIBUTES:
            value = sysfs.read_text(f"{folder}/{name}")
            told = "(not there)" if value is None else value.replace("\n", "\n    ")
            lines.append(f"{name}: {told}")
        lines.append(f"driver: {sysfs.link_name(f'{folder}/driver')}")
        header = (sysfs.read(f"{folder}/config") or b"")[:CONFIG_HEADER]
        lines += ["config:", *(_hex(header, at) for at in range(0, len(header), 16))]
        yield f"sysfs/{device.id}.txt", "\n".join(lines) + "\n"


def _hex(data: bytes, at: int) -> str:
    return f"    {at:02x}: {data[at : at + 16].hex(' ')}"


def _mx_smi(context: Context) -> Iterator[tuple[str, str]]:
    launched = launch(context)
    if launched is None:
        return
    deadline = context.hardware.smi_timeout
    for style, name in zip(FIELD_STYLES, STYLES, strict=True):
        answer = ask(launched, ("select", *style(ALL_FIELDS)), deadline)
        type = "-".join(name.split())
        yield f"mx-smi/select{STYLES.index(name)}.txt", _run(type, answer.error, answer.output)
        if answer.error is None or not answer.ended:
            break
    answer = ask(launched, ("query",), deadline)
    yield "mx-smi/query.txt", _run("query", answer.error, answer.output)


def _run(words: str, error: str | None, output: str) -> str:
    return f"# {words}: {error or 'ended well'}\n{output}"


def last_lines(path: Path, most: int = _LINES, size: int = 1024 * 1024) -> str:
    """The end of a log of any length."""
    try:
        with path.open("rb", buffering=0) as file:
            data, cut = _end_of(file, size)
    except OSError as error:
        return f"{path}: {error.strerror or error}\n"
    if cut:  # half a line could be half a secret, which nobody knows for one
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
