"""One file with what a bug report needs, without secrets."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from .context import Context
from .redact import Redactor, stand_ins

#: A shorter name is a part of too many words.
SHORTEST = 4
#: Variables that have the name of this host.
HOST_NAMES = ("HOSTNAME", "NODE_NAME", "SPU_NODE_NAME")
#: At most so much of one file, and of all of them together, in bytes before packing.
MAX_FILE = 1024 * 1024
MAX_ALL = 8 * 1024 * 1024
FOLDER = "moffett-doctor"


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    size: int
    cut: bool = False


def redactor_for(context: Context, *, with_serials: bool, with_names: bool) -> Redactor:
    """What is known of secrets: by the node's state and by the settings in effect."""
    serials = {value for d in context.devices for value in (d.serial, d.uuid) if value}
    for resource in context.resources:
        serials |= resource.select.serials | resource.exclude.serials
    names = () if with_names else _names(context)
    return Redactor(frozenset(serials), names, hide_serials=not with_serials)


def _names(context: Context) -> tuple[tuple[str, str], ...]:
    holders = [h for ids in context.held.by_resource.values() for hs in ids.values() for h in hs]
    given = {name: value.text for name, value in context.given.items()}
    hosts = [
        os.uname().nodename,
        context.environment.read("etc/hostname"),
        *(context.environment.variables.get(name) for name in HOST_NAMES),
        given.get("SPU_NODE_NAME"),
        urlsplit(given.get("SPU_API_SERVER", "")).hostname,
    ]
    # A host's name is written with its domain, and without.
    hosts += [host.partition(".")[0] for host in hosts if host and not host[0].isdigit()]
    pods = stand_ins("pod", (holder.pod for holder in holders))
    spaces = stand_ins("namespace", (h.namespace for h in holders if h.namespace != "default"))
    containers = stand_ins("container", (holder.container for holder in holders))
    # A short name is a part of many words, so it is replaced only where it stands as a whole.
    whole = {
        f"{h.namespace}/{h.pod}": f"{spaces.get(h.namespace, h.namespace)}/{pods[h.pod]}"
        for h in holders
    } | {f"{h.pod}/{h.container}": f"{pods[h.pod]}/{containers[h.container]}" for h in holders}
    alone = {
        name: instead
        for known in (pods, spaces, containers, stand_ins("host", hosts))
        for name, instead in known.items()
        if len(name) >= SHORTEST
    }
    # The longest first: one name can be part of another.
    return tuple(sorted((whole | alone).items(), key=lambda pair: len(pair[0]), reverse=True))


def write(path: Path, files: Iterable[tuple[str, str]], redact: Redactor) -> Sequence[Member]:
    """Replaces `path` as a whole, readable for its owner alone. Raises OSError; then
    nothing has changed."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            members = pack(file, files, redact)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return members


def pack(file: IO[bytes], files: Iterable[tuple[str, str]], redact: Redactor) -> Sequence[Member]:
    members: list[Member] = []
    room = MAX_ALL
    with tarfile.open(fileobj=file, mode="w|gz") as archive:
        for name, text in files:
            data = redact(text).encode(errors="replace")
            kept = data[: min(MAX_FILE, room)]
            room -= len(kept)
            archive.addfile(_header(name, len(kept)), io.BytesIO(kept))
            members.append(Member(name, len(kept), len(kept) < len(data)))
    return members


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(f"{FOLDER}/{name}")
    header.size = size
    header.mode = 0o600
    header.mtime = int(time.time())
    return header
