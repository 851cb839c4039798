"""The SOLA installation of a host: its version, and what of it a container needs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .types import Mount

SOLA = "/usr/local/sola"
#: The vendor's tools for a user of devices; mx-daemon is the host's alone.
TOOLS = ("/usr/bin/mx-smi", "/usr/bin/mx-qual", "/usr/bin/mx-mft")
#: Where the dynamic loader's configuration names SOLA's libraries.
LOADER = "/etc/ld.so.conf.d/sola.conf"


def sola_version(root: Path) -> str | None:
    """From where the link `/usr/local/sola` leads: `sola-3.5.0`."""
    match = re.fullmatch(r"sola-(\d.*)", os.path.basename(_target(root) or ""))  # noqa: PTH119
    return match[1] if match and match[1].isprintable() else None


def sola_mounts(root: Path) -> tuple[Mount, ...] | None:
    """SOLA by the name that stays and by the name with its version, for its own files
    use either; the tools and the loader's configuration as far as they are there.
    None when there is no SOLA. `root` is where the host's root is seen."""
    installed = _target(root) or SOLA
    if not _seen(root, installed).is_dir():
        return None
    names = dict.fromkeys((SOLA, installed))
    others = [path for path in (*TOOLS, LOADER) if _seen(root, path).is_file()]
    return (
        *(Mount(installed, name) for name in names),
        *(Mount(path, path) for path in others),
    )


def _target(root: Path) -> str | None:
    """Where the link leads, as the host sees it; None if it is no link."""
    try:
        target = os.readlink(_seen(root, SOLA))  # noqa: PTH115
    except OSError:
        return None
    return os.path.normpath(os.path.join(os.path.dirname(SOLA), target))  # noqa: PTH118, PTH120


def _seen(root: Path, path: str) -> Path:
    return root / path.lstrip("/")
