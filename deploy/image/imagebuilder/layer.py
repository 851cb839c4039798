"""Blobs and layers: content with an address, and folders packed into tar files.

Everything here is a function of its input: names are sorted, owners are root and times are
fixed, so the same files give the same digest.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Compressor = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Blob:
    """Some content and its address."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """Return the content's address, ``sha256:...``."""
        return sha256(self.content)

    @property
    def path(self) -> str:
        """Return the blob's place in the archive."""
        return "blobs/" + self.digest.replace(":", "/")

    def descriptor(self, **more: object) -> dict[str, object]:
        """Return the OCI descriptor that points at this blob."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.content),
            **more,
        }


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its compressed blob and the digest of the tar inside."""

    blob: Blob
    diff_id: str
    unpacked_bytes: int | None
    description: str


def sha256(content: bytes) -> str:
    """Return the digest of some content in the form image formats use."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def pack_layer(
    root: Path, description: str, compress: Compressor, *, below: Path | None = None
) -> Layer:
    """Pack a directory tree into a layer, less what the layer ``below`` it already has."""
    buffer = io.BytesIO()
    unpacked = 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in _tree(root):
            if below and os.path.lexists(below / path.relative_to(root)):
                continue
            info = _entry(tar, path, str(path.relative_to(root)))
            unpacked += info.size
            if info.isreg():
                with path.open("rb") as stream:
                    tar.addfile(info, stream)
            else:
                tar.addfile(info)
    content = buffer.getvalue()
    return Layer(Blob(compress(content), OCI_LAYER), sha256(content), unpacked, description)


def _tree(root: Path) -> Iterator[Path]:
    """Yield every path below ``root``, parents before children, in a fixed order."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            yield Path(folder, name)


def _entry(tar: tarfile.TarFile, path: Path, name: str) -> tarfile.TarInfo:
    info = tar.gettarinfo(path, name)
    # Two names of one file would otherwise be packed as a link or not, by chance of order.
    if info.islnk():
        info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    if info.isreg():
        info.mode = 0o755 if info.mode & 0o100 else 0o644
    elif info.isdir():
        info.mode = 0o1777 if info.mode & 0o1000 else 0o755
    return info
