"""Image archives: the image's configuration, and the tar that engines load.

One archive serves every loader: it is an OCI image layout (`oci-layout`, `index.json`,
`blobs/`), which containerd and podman read, and carries the `manifest.json` that
`docker load` of any age looks for, pointing at the same blobs. That one knows a single
platform; a layout of several images under one name is for OCI's tools and registries.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .layer import OCI_LAYER, Blob, Compressor, Layer, pack_layer

__all__ = (
    "OCI_LAYER",
    "Blob",
    "Compressor",
    "Image",
    "ImageSettings",
    "Layer",
    "assemble",
    "canonical_name",
    "pack_layer",
    "read_archive",
    "write_archive",
    "write_layout",
)

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"

EPOCH = datetime.fromtimestamp(0, UTC)


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
    settings: ImageSettings

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Return everything that its manifest leads to, and the manifest."""
        return (self.config, self.manifest, *(layer.blob for layer in self.layers))

    @property
    def platform(self) -> dict[str, str]:
        """Return the platform in the form of OCI's index."""
        return {"architecture": self.settings.architecture, "os": "linux"}


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
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.blob.descriptor() for layer in layers],
    }
    if settings.labels:
        # Labels are for those who have pulled the image, annotations for those who have not.
        manifest["annotations"] = dict(settings.labels)
    return Image(tuple(tags), config, _json_blob(manifest, OCI_MANIFEST), tuple(layers), settings)


def write_archive(image: Image, target: Path) -> None:
    """Write the archive that `docker load` and `ctr images import` take."""
    docker = [
        {
            "Config": image.config.path,
            "RepoTags": list(image.tags),
            "Layers": [layer.blob.path for layer in image.layers],
        }
    ]
    manifests = [
        image.manifest.descriptor(platform=image.platform, annotations=_reference(tag))
        for tag in image.tags
    ]
    _write(target, manifests, image.blobs, {"manifest.json": _json_bytes(docker)})


def write_layout(images: Sequence[Image], target: Path) -> Blob:
    """Write images for several platforms as one OCI layout; return the index they share."""
    index = _json_blob(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [image.manifest.descriptor(platform=image.platform) for image in images],
            # What is true of each is true of all.
            "annotations": dict(images[0].settings.labels),
        },
        OCI_INDEX,
    )
    # One reference: `skopeo copy oci-archive:` takes a layout with several only with a name.
    manifests = [index.descriptor(annotations=_reference(images[0].tags[-1]))]
    _write(target, manifests, (index, *(blob for image in images for blob in image.blobs)), {})
    return index


def _write(
    target: Path,
    manifests: Sequence[Mapping[str, object]],
    blobs: Iterable[Blob],
    more: Mapping[str, bytes],
) -> None:
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    members = {
        "oci-layout": _json_bytes({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json_bytes(index),
        **more,
        **dict(sorted((blob.path, blob.content) for blob in blobs)),
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
