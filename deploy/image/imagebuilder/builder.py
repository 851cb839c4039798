"""From source and packages to an image: the base from the cache or made, then the plugin."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from . import application, base, checks, contents
from .architecture import Architecture, native
from .archive import OCI_LAYER, Blob, ImageSettings, Layer, pack_layer
from .inside import Interpreter
from .sbom import Component, debian_component
from .source import Origin
from .wheels import Wheel

# What decides what the base is made of.
_RECIPE = ("architecture.py", "base.py", "contents.py", "inside.py", "layer.py")
_BASE_DESCRIPTION = f"Debian {contents.RELEASE}, Python"
_PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Base:
    """A base that is made: its root, its layer and the packages it has files of."""

    root: Path
    layer: Layer
    packages: tuple[base.Package, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """What an image is assembled from; `ran` is whether its programs could be tried."""

    settings: ImageSettings
    layers: tuple[Layer, ...]
    components: tuple[Component, ...]
    plugin: Wheel
    ran: bool


def build(source: Path, origin: Origin, architecture: Architecture, *, refresh: bool) -> Built:
    """Build an image's two layers."""
    below = cached_base(architecture, refresh=refresh)
    with tempfile.TemporaryDirectory(prefix="moffett-image-") as scratch:
        merged = Path(scratch) / "root"
        wheels, ran = make_root(source, origin, below, merged, architecture)
        layer = pack_layer(merged, "the plugin", interpreter().gzip, below=below.root)
    settings = ImageSettings(
        architecture=architecture.name,
        created=origin.created,
        entrypoint=(f"/usr/bin/{application.PROGRAM}",),
        command=("serve",),
        environment=(_PATH,),
        labels=labels(wheels[0], origin),
    )
    components = (
        *(debian_component(package, contents.RELEASE) for package in below.packages),
        *(_python(wheel) for wheel in wheels),
    )
    return Built(settings, (below.layer, layer), components, wheels[0], ran)


def make_root(
    source: Path, origin: Origin, below: Base, target: Path, architecture: Architecture
) -> tuple[tuple[Wheel, ...], bool]:
    """Make the image's whole root: the base's files and the application's, checked."""
    # Hard links: the base is only read, and copying 30 MiB would take longer.
    shutil.copytree(below.root, target, symlinks=True, copy_function=_link_or_copy)
    with tempfile.TemporaryDirectory(prefix="moffett-build-") as work:
        wheels = application.install(source, origin, target, architecture, Path(work))
    application.compile_modules(target, interpreter())
    return wheels, checks.check(target, architecture)


def _link_or_copy(source: str, target: str) -> None:
    """Link a file, or copy it where the two places are on different file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def interpreter() -> Interpreter:
    """Return the interpreter of this machine's base image, which all images are made with."""
    here = native()
    return Interpreter(cached_base(here).root, here)


def cached_base(architecture: Architecture, *, refresh: bool = False) -> Base:
    """Return the base from the cache, keyed by the recipe that makes it."""
    folder = Path(__file__).parent
    recipe = b"".join((folder / name).read_bytes() for name in _RECIPE)
    key = f"image-base-{hashlib.sha256(recipe).hexdigest()[:16]}-{architecture.machine}"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "moffett-device-plugin" / key
    if refresh:
        shutil.rmtree(cache, ignore_errors=True)
    if not cache.exists():
        _make_base(cache, architecture)
    facts = json.loads((cache / "base.json").read_text())
    return Base(
        cache / "root",
        Layer(
            Blob((cache / "layer.tar.gz").read_bytes(), OCI_LAYER),
            facts["diff_id"],
            facts["unpacked_bytes"],
            _BASE_DESCRIPTION,
        ),
        tuple(base.Package(**package) for package in facts["packages"]),
    )


def _make_base(cache: Path, architecture: Architecture) -> None:
    unfinished = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        _fill_base(unfinished, architecture)
        # Two builds may make it at once: the first one's is kept.
        with contextlib.suppress(OSError):
            unfinished.rename(cache)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fill_base(folder: Path, architecture: Architecture) -> None:
    root = folder / "root"
    with tempfile.TemporaryDirectory(prefix="moffett-base-") as scratch:
        packages = base.make_base(root, Path(scratch), architecture)
    # An image for another machine needs this one's Python, and so this one's base first.
    python = Interpreter(root, architecture) if architecture.is_native else interpreter()
    python.compile(root, f"usr/lib/{contents.PYTHON}")
    layer = pack_layer(root, _BASE_DESCRIPTION, python.gzip)
    (folder / "layer.tar.gz").write_bytes(layer.blob.content)
    facts = {
        "diff_id": layer.diff_id,
        "unpacked_bytes": layer.unpacked_bytes,
        "packages": [asdict(package) for package in packages],
    }
    (folder / "base.json").write_text(json.dumps(facts))


def labels(plugin: Wheel, origin: Origin) -> dict[str, str]:
    """Return the image's labels, the keys of which OCI's image specification names."""
    values = {
        "title": "Moffett Kubernetes device plugin",
        "description": plugin.summary,
        "version": plugin.version,
        "licenses": plugin.license,
        "revision": origin.commit,
        "created": origin.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "base.name": f"debian:{contents.SUITE} (packages only)",
    }
    return {f"org.opencontainers.image.{key}": value for key, value in values.items() if value}


def _python(wheel: Wheel) -> Component:
    return Component("pypi", wheel.name, wheel.version, wheel.sha256, wheel.license)
