"""Image archives: layers, the image's configuration, and the tar that engines load.

One archive serves every loader: it is an OCI image layout (`oci-layout`, `index.json`,
`blobs/`), which containerd and podman read, and carries the `manifest.json` that
`docker load` of any age looks for, pointing at the same blobs.

Everything here is a function of its input: names are sorted, owners are root and times are
fixed, so the same files give the same digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

EPOCH = datetime.fromtimestamp(0, UTC)

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


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """What a container made from the image starts with."""

    architecture: str
    created: datetime = EPOCH
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_dir: str = "/"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """A whole image, ready to be written."""

    tags: tuple[str, ...]
    config: Blob
    manifest: Blob
    layers: tuple[Layer, ...]


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


def assemble(layers: Sequence[Layer], settings: ImageSettings, tags: Sequence[str]) -> Image:
    """Put layers and settings together into an image."""
    created = settings.created.strftime("%Y-%m-%dT%H:%M:%SZ")
    runtime: dict[str, object] = {
        "Entrypoint": list(settings.entrypoint),
        "Cmd": list(settings.command),
        "Env": list(settings.environment),
        "WorkingDir": settings.working_dir,
        "Labels": dict(settings.labels),
    }
    config = _json_blob(
        {
            "architecture": settings.architecture,
            "os": "linux",
            "created": created,
            "config": {key: value for key, value in runtime.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": created, "created_by": layer.description} for layer in layers],
        },
        OCI_CONFIG,
    )
    manifest = _json_blob(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.blob.descriptor() for layer in layers],
        },
        OCI_MANIFEST,
    )
    return Image(tuple(tags), config, manifest, tuple(layers))


def write_archive(image: Image, target: Path) -> None:
    """Write the archive that `docker load` and `ctr images import` take."""
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [image.manifest.descriptor(annotations=_reference(tag)) for tag in image.tags],
    }
    docker = [
        {
            "Config": image.config.path,
            "RepoTags": list(image.tags),
            "Layers": [layer.blob.path for layer in image.layers],
        }
    ]
    blobs = {
        blob.path: blob.content
        for blob in (image.config, image.manifest, *(layer.blob for layer in image.layers))
    }
    members = {
        "oci-layout": _json_bytes({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json_bytes(index),
        "manifest.json": _json_bytes(docker),
        **dict(sorted(blobs.items())),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole: a build that was stopped leaves no half archive.
    unfinished = target.with_name(f".{target.name}.new")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    unfinished.rename(target)


def read_archive(source: Path) -> tuple[ImageSettings, tuple[str, ...], tuple[Layer, ...]]:
    """Return the settings, tags and layers of an archive written by `write_archive`."""
    with tarfile.open(source) as tar:

        def content(name: str) -> bytes:
            member = tar.extractfile(name)
            if member is None:
                raise ValueError(f"{source}: {name} is not a file")
            return member.read()

        docker = json.loads(content("manifest.json"))[0]
        config = json.loads(content(docker["Config"]))
        layers = tuple(
            Layer(Blob(content(path), OCI_LAYER), diff_id, None, history["created_by"])
            for path, diff_id, history in zip(
                docker["Layers"], config["rootfs"]["diff_ids"], config["history"], strict=True
            )
        )
    runtime = config["config"]
    settings = ImageSettings(
        architecture=config["architecture"],
        created=datetime.fromisoformat(config["created"]),
        entrypoint=tuple(runtime.get("Entrypoint", ())),
        command=tuple(runtime.get("Cmd", ())),
        environment=tuple(runtime.get("Env", ())),
        working_dir=runtime.get("WorkingDir", "/"),
        labels=runtime.get("Labels", {}),
    )
    return settings, tuple(docker["RepoTags"]), layers


def _reference(tag: str) -> dict[str, str]:
    return {
        "io.containerd.image.name": canonical_name(tag),
        "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
    }


def canonical_name(tag: str) -> str:
    """Return a tag with the registry spelled out, as containerd names images.

    >>> canonical_name("sola:3.5.0")
    'docker.io/library/sola:3.5.0'
    >>> canonical_name("moffett/k8s-device-plugin:v0.1.0")
    'docker.io/moffett/k8s-device-plugin:v0.1.0'
    >>> canonical_name("localhost/pause:3.2")
    'localhost/pause:3.2'
    """
    first, slash, _ = tag.partition("/")
    if not slash:
        return f"docker.io/library/{tag}"
    if first == "localhost" or "." in first or ":" in first:
        return tag
    return f"docker.io/{tag}"


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _json_blob(value: Any, media_type: str) -> Blob:
    return Blob(_json_bytes(value), media_type)
