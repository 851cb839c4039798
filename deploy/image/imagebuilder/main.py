"""The command: builds the image archives, or makes a variant of one."""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import builder, sbom
from .architecture import AMD64, ARCHITECTURES, Architecture, native
from .archive import Image, assemble, read_archive, write_archive, write_layout
from .source import origin

REPOSITORY = "moffett/k8s-device-plugin"
#: The tag in the vendor's manual, whose manifests must find this image too.
MANUAL_TAG = "v0.1.0"
ALL = "all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    os.umask(0o022)  # what is looked at from inside has to be open to all users
    chosen = list(ARCHITECTURES) if options.architecture == ALL else [options.architecture]
    architectures = [ARCHITECTURES[name] for name in chosen]
    if options.root:
        make_root(options, architectures)
    elif options.base_archive:
        make_variant(options)
    else:
        images = [build(options, architecture) for architecture in architectures]
        if len(images) > 1:
            make_layout(options, images)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    result = argparse.ArgumentParser(
        prog="build", description="Build the plugin's container image without an engine."
    )
    root = Path(__file__).resolve().parents[3]
    result.add_argument(
        "--source", type=Path, default=root, metavar="DIR", help="the project (default: this one)"
    )
    result.add_argument(
        "--architecture",
        choices=(*ARCHITECTURES, ALL),
        default=native().name,
        help="what machines the image is for (default: ones like this, %(default)s); "
        "all: an archive for each, and an OCI layout of both",
    )
    result.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the archive (default: dist/...-{MANUAL_TAG}.tar; arm64: ...-{MANUAL_TAG}-arm64.tar)",
    )
    result.add_argument(
        "--tag",
        action="append",
        metavar="NAME:TAG",
        help=f"default: {REPOSITORY} with {MANUAL_TAG} and vVERSION",
    )
    result.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one more variable in the image's environment; may be repeated",
    )
    result.add_argument(
        "--from",
        dest="base_archive",
        type=Path,
        metavar="FILE",
        help="build nothing: make a variant of an archive built before",
    )
    result.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="make the image's root in a new folder, and no archive (the Dockerfile's way)",
    )
    result.add_argument(
        "--refresh-base",
        action="store_true",
        help="fetch the Debian packages anew (for security updates)",
    )
    return result


def make_root(options: argparse.Namespace, architectures: Sequence[Architecture]) -> None:
    """Make the root alone, of one architecture."""
    if len(architectures) > 1:
        raise SystemExit("build: --root makes the root of one architecture")
    below = builder.cached_base(architectures[0], refresh=options.refresh_base)
    source = options.source
    builder.make_root(source, origin(source), below, options.root, architectures[0])


def make_variant(options: argparse.Namespace) -> None:
    """Write an archive again, under other names or with more in its environment."""
    start = time.monotonic()
    settings, tags, layers = read_archive(options.base_archive)
    tags = tuple(options.tag or tags)
    settings = replace(settings, environment=(*settings.environment, *options.env))
    image = assemble(layers, settings, tags)
    target = options.output or default_output(options, image)
    write_archive(image, target)
    report(image, target, write_checksum(target), time.monotonic() - start)


def build(options: argparse.Namespace, architecture: Architecture) -> Image:
    """Build the archive of one architecture, its checksum and its bill of materials."""
    start = time.monotonic()
    refresh = options.refresh_base
    of = origin(options.source)
    built = builder.build(options.source, of, architecture, refresh=refresh)
    version = built.plugin.version
    settings = replace(built.settings, environment=(*built.settings.environment, *options.env))
    tags = options.tag or default_tags(version)
    image = assemble(built.layers, settings, tags)
    target = default_output(options, image)
    if options.output:
        target = options.output
        if options.architecture == ALL:
            target = with_suffix(target, architecture)
    write_archive(image, target)
    subject = sbom.Subject(
        version, architecture.name, image.manifest.digest, of.created, built.plugin.license
    )
    bill = sbom.document(subject, built.components)
    target.with_name(target.name + ".spdx.json").write_text(sbom.text(bill))
    report(image, target, write_checksum(target), time.monotonic() - start)
    if not built.ran:
        print(f"not run  {architecture.name} programs: {architecture.emulator} is not installed")
    return image


def make_layout(options: argparse.Namespace, images: Sequence[Image]) -> None:
    """Write the images as one OCI layout, under one name."""
    first = options.output or default_output(options, images[0])
    target = first.with_name(f"{first.name.removesuffix('.tar')}-multiarch.oci.tar")
    index = write_layout(images, target)
    platforms = ", ".join(f"linux/{image.settings.architecture}" for image in images)
    print(f"index    {index.digest}  {platforms}")
    print(f"layout   {target}  {mebibytes(target)}  sha256:{write_checksum(target)}")


def default_tags(version: str) -> list[str]:
    """Return the name in the manual, and the one of this version."""
    return list(dict.fromkeys(f"{REPOSITORY}:{tag}" for tag in (MANUAL_TAG, f"v{version}")))


def default_output(options: argparse.Namespace, image: Image) -> Path:
    """Return where an image's archive goes: the manual's name for amd64."""
    version = image.tags[0].rpartition(":")[2]
    target: Path = options.source / "dist" / f"moffett-k8s-device-plugin-{version}.tar"
    return with_suffix(target, ARCHITECTURES[image.settings.architecture])


def with_suffix(target: Path, architecture: Architecture) -> Path:
    """Return an archive's name with its architecture, which amd64's goes without."""
    if architecture == AMD64:
        return target
    return target.with_name(f"{target.name.removesuffix('.tar')}-{architecture.name}.tar")


def write_checksum(target: Path) -> str:
    """Write the file that `sha256sum --check` reads and return the digest."""
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name(target.name + ".sha256").write_text(f"{digest}  {target.name}\n")
    return digest


def mebibytes(target: Path) -> str:
    """Return a file's size for people."""
    return f"{target.stat().st_size / 2**20:.1f} MiB"


def report(image: Image, output: Path, digest: str, seconds: float) -> None:
    """Print what was made."""
    for layer in image.layers:
        size = len(layer.blob.content) / 2**20
        unpacked = (layer.unpacked_bytes or 0) / 2**20
        print(
            f"layer    {layer.blob.digest}  {size:.1f} MiB"
            + (f", {unpacked:.1f} MiB unpacked" if unpacked else "")
            + f"  ({layer.description})"
        )
    architecture = image.settings.architecture
    print(f"image    {image.manifest.digest}  {', '.join(image.tags)} ({architecture})")
    print(f"archive  {output}  {mebibytes(output)}  sha256:{digest}")
    print(f"time     {seconds:.1f} s", flush=True)
