"""What an AllocateResponse gives a container, and what of it is not legal. Pure."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb

from .outcome import plural

_CDI_NAME = re.compile(
    r"[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?"  # vendor
    r"/[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?"  # class
    r"=[A-Za-z0-9]([-A-Za-z0-9_.:]*[A-Za-z0-9])?"
)


def summary(response: pb.ContainerAllocateResponse) -> str:
    """Empty when it gives nothing."""
    counts = {
        "device node": len(response.devices),
        "mount": len(response.mounts),
        "variable": len(response.envs),
        "CDI device": len(response.cdi_devices),
        "annotation": len(response.annotations),
    }
    return ", ".join(plural(count, what) for what, count in counts.items() if count)


def wrong_grant(response: pb.ContainerAllocateResponse) -> str | None:
    """What is not legal in it, or None."""
    places: dict[str, str] = {}
    for device in response.devices:
        for path in (device.host_path, device.container_path):
            if (wrong := _wrong_path(path)) is not None:
                return f"device path {path!r} {wrong}"
        if not device.permissions or set(device.permissions) - set("rwm"):
            return f"{device.host_path}: permissions {device.permissions!r}"
        if places.setdefault(device.container_path, device.host_path) != device.host_path:
            return f"two devices at {device.container_path}"
    places = {}
    for mount in response.mounts:
        for path in (mount.host_path, mount.container_path):
            if (wrong := _wrong_path(path)) is not None:
                return f"mount path {path!r} {wrong}"
        if places.setdefault(mount.container_path, mount.host_path) != mount.host_path:
            return f"two mounts at {mount.container_path}"
    for name in response.envs:
        if not name or "=" in name or "\0" in name:
            return f"a variable named {name!r}"
    for cdi in response.cdi_devices:
        if not _CDI_NAME.fullmatch(cdi.name):
            return f"CDI device {cdi.name!r} is not VENDOR/CLASS=NAME"
    return None


def missing_paths(response: pb.ContainerAllocateResponse) -> list[str]:
    """The host's paths in it that are not on this machine."""
    paths = [*(d.host_path for d in response.devices), *(m.host_path for m in response.mounts)]
    return [path for path in paths if not Path(path).exists()]


def _wrong_path(path: str) -> str | None:
    if not path.startswith("/"):
        return "is not absolute"
    if ".." in PurePosixPath(path).parts:
        return "has a .. in it"
    return None
