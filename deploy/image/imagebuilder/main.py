"""The command: builds the image archive, or makes a variant of one."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from . import application, base
from .archive import (
    OCI_LAYER,
    Blob,
    Image,
    ImageSettings,
    Layer,
    assemble,
    pack_layer,
    read_archive,
    write_archive,
)

REPOSITORY = "moffett/k8s-device-plugin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    start = time.monotonic()
    if options.root:
        root, _ = cached_base(refresh=options.refresh_base)
        make_root(options.source, root, options.root)
        return 0
    if options.base_archive:
        settings, tags, layers = read_archive(options.base_archive)
    else:
        settings, tags, layers = build(options.source, refresh=options.refresh_base)
    if options.tag:
        tags = tuple(options.tag)
    settings = replace(settings, environment=(*settings.environment, *options.env))
    version = tags[0].rpartition(":")[2]
    output = options.output or (
        options.source / "dist" / f"moffett-k8s-device-plugin-{version}.tar"
    )
    image = assemble(layers, settings, tags)
    write_archive(image, output)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    output.with_name(output.name + ".sha256").write_text(f"{digest}  {output.name}\n")
    report(image, output, digest, time.monotonic() - start)
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
        "--output", type=Path, metavar="FILE", help="the archive (default: dist/...-vVERSION.tar)"
    )
    result.add_argument(
        "--tag", action="append", metavar="NAME:TAG", help=f"default: {REPOSITORY}:vVERSION"
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


def build(
    source: Path, *, refresh: bool
) -> tuple[ImageSettings, tuple[str, ...], tuple[Layer, ...]]:
    """Build the image: the base layer, from the cache if it is there, and the application's."""
    root, base_layer = cached_base(refresh=refresh)
    with tempfile.TemporaryDirectory(prefix="moffett-image-") as scratch:
        merged = Path(scratch) / "root"
        metadata = make_root(source, root, merged)
        layer = pack_layer(
            merged, "the plugin", lambda content: base.gzip_in(root, content), below=root
        )
    settings = ImageSettings(
        architecture=ARCHITECTURES.get(platform.machine(), platform.machine()),
        created=created(source),
        entrypoint=(f"/usr/bin/{application.PROGRAM}",),
        command=("serve",),
        environment=(PATH,),
        labels=labels(metadata, source),
    )
    return settings, (f"{REPOSITORY}:v{metadata.version}",), (base_layer, layer)


def make_root(source: Path, base_root: Path, target: Path) -> application.Metadata:
    """Make the image's whole root: the base's files and the application's."""
    # Hard links: the base is only read, and copying 25 MiB would take longer.
    shutil.copytree(base_root, target, symlinks=True, copy_function=link_or_copy)
    with tempfile.TemporaryDirectory(prefix="moffett-build-") as work:
        metadata = application.install(source, target, Path(work))
    application.check(target)
    return metadata


def link_or_copy(source: str, target: str) -> None:
    """Link a file, or copy it where the two places are on different file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def cached_base(*, refresh: bool) -> tuple[Path, Layer]:
    """Return the base root and its layer, keyed by the recipe that makes them."""
    recipe = hashlib.sha256(Path(base.__file__).read_bytes()).hexdigest()[:16]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "moffett-device-plugin" / f"image-base-{recipe}-{platform.machine()}"
    if refresh:
        shutil.rmtree(cache, ignore_errors=True)
    if not cache.exists():
        unfinished = cache.with_name(f".{cache.name}.{os.getpid()}")
        with tempfile.TemporaryDirectory(prefix="moffett-base-") as scratch:
            base.make_base(unfinished / "root", Path(scratch))
        root = unfinished / "root"
        layer = pack_layer(root, "Debian 12, Python", lambda content: base.gzip_in(root, content))
        (unfinished / "layer.tar.gz").write_bytes(layer.blob.content)
        facts = {"diff_id": layer.diff_id, "unpacked_bytes": layer.unpacked_bytes}
        (unfinished / "layer.json").write_text(json.dumps(facts))
        unfinished.rename(cache)
    facts = json.loads((cache / "layer.json").read_text())
    blob = Blob((cache / "layer.tar.gz").read_bytes(), OCI_LAYER)
    return cache / "root", Layer(blob, description="Debian 12, Python", **facts)


def created(source: Path) -> datetime:
    """Return the image's creation time: SOURCE_DATE_EPOCH, else the commit's, else 1970."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or git(source, "log", "-1", "--format=%ct") or "0"
    return datetime.fromtimestamp(int(epoch), UTC)


def labels(metadata: application.Metadata, source: Path) -> dict[str, str]:
    """Return the image's OCI labels."""
    prefix = "org.opencontainers.image."
    values = {
        "title": "Moffett Kubernetes device plugin",
        "description": metadata.summary,
        "version": metadata.version,
        "licenses": metadata.license,
        "revision": git(source, "rev-parse", "HEAD"),
        "base.name": f"debian:{base.SUITE} (packages only)",
        "source": metadata.urls.get("Source", ""),
        "documentation": metadata.urls.get("Documentation", ""),
    }
    return {prefix + key: value for key, value in values.items() if value}


def git(source: Path, *arguments: str) -> str:
    """Return what git prints, or nothing outside a repository."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(
        ["git", "-C", str(source), *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout.strip()


def report(image: Image, output: Path, digest: str, seconds: float) -> None:
    """Print what was made."""
    mebibyte = 2**20
    for layer in image.layers:
        size = len(layer.blob.content) / mebibyte
        unpacked = (layer.unpacked_bytes or 0) / mebibyte
        print(
            f"layer    {layer.blob.digest}  {size:.1f} MiB"
            + (f", {unpacked:.1f} MiB unpacked" if unpacked else "")
            + f"  ({layer.description})"
        )
    print(f"image    {image.manifest.digest}  {', '.join(image.tags)}")
    print(f"archive  {output}  {output.stat().st_size / mebibyte:.1f} MiB  sha256:{digest}")
    print(f"time     {seconds:.1f} s")
