"""What kind of file system a path is on: whether the kernel keeps it up to date."""

from __future__ import annotations

from pathlib import Path


def file_system_of(path: Path, mountinfo: str) -> str | None:
    """The type (`sysfs`, `devtmpfs`...) of the mount that `path` is the root of, or
    is in, by its device number; None when it is not known."""
    try:
        device = path.stat().st_dev
    except OSError:
        return None
    wanted = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
    for line in mountinfo.splitlines():
        fields, _, after = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) > 2 and parts[2] == wanted:
            return after.split(" ", 1)[0]
    return None


def mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return ""
