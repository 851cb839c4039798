"""The SOLA installation of a host: its version, and what of it a container needs."""

from __future__ import annotations

import re

from .resolve import HostRoot
from .types import Mount

SOLA = "/usr/local/sola"
#: The vendor's tools for a user of devices; mx-daemon is the host's alone.
TOOLS = ("/usr/bin/mx-smi", "/usr/bin/mx-qual", "/usr/bin/mx-mft")
#: Where the dynamic loader's configuration names SOLA's libraries.
LOADER = "/etc/ld.so.conf.d/sola.conf"


def sola_version(host: HostRoot) -> str | None:
    """From where the link `/usr/local/sola` leads: `sola-3.5.0`."""
    match = re.fullmatch(r".*/sola-(\d[^/]*)", host.resolve(SOLA))
    return match[1] if match and match[1].isprintable() else None


def sola_mounts(host: HostRoot) -> tuple[Mount, ...] | None:
    """SOLA by the name that stays and by the name with its version, for its own files
    use either; the tools and the loader's configuration as far as they are there.
    None when there is no SOLA."""
    installed = host.resolve(SOLA)
    if not host.see(SOLA).is_dir():
        return None
    names = dict.fromkeys((SOLA, installed))
    others = [path for path in (*TOOLS, LOADER) if host.see(path).is_file()]
    return (
        *(Mount(installed, name) for name in names),
        *(Mount(host.resolve(path), path) for path in others),
    )
