"""Debian's kernel and its headers; the tier's modules and the first file system built for it."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster import packages
from cluster.programs import cache_folder
from cluster.shell import output, run

TIER = Path(__file__).resolve().parents[1]
MODULE = TIER / "module"
INIT = TIER / "guest" / "init"

REQUIRED = (
    "busybox-static",
    "cpio",
    "e2fsprogs",
    "gcc",
    "iproute2",
    "kmod",
    "make",
    "qemu-system-x86",
    "util-linux",
)
#: What the guest needs to reach the host's files; other modules it loads from there.
FIRST_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A Debian kernel, unpacked below `folder` (boot/, lib/modules/)."""

    release: str
    folder: Path

    @property
    def image(self) -> Path:
        """What a boot loader starts."""
        return self.folder / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        """What is /lib/modules where it is installed."""
        return self.folder / "lib" / "modules"


@dataclass(frozen=True, slots=True)
class Built:
    """What was built for a kernel: the SPU modules, and the first file system."""

    folder: Path

    @property
    def initrd(self) -> Path:
        """The archive of the first file system."""
        return self.folder / "initrd.gz"


def ensure_kernel() -> Kernel:
    """Return the newest kernel that is in the cache and has its headers installed, else
    Debian's current one, with its headers installed."""
    cached = sorted(cache_folder().glob("vm-kernel-*"), key=_natural)
    for folder in reversed(cached):
        release = folder.name.removeprefix("vm-kernel-")
        if packages.installed_version(f"linux-headers-{release}"):
            return Kernel(release, folder)
    packages.update_index()
    release = _current_release()
    packages.ensure_installed((f"linux-headers-{release}",))
    folder = cache_folder() / f"vm-kernel-{release}"

    def fill(new: Path) -> None:
        archive = packages.download_binary(f"linux-image-{release}", new)
        run(["dpkg-deb", "-x", archive, new])
        archive.unlink()
        run(["depmod", "-b", new, release])

    _made_once(folder, fill)
    return Kernel(release, folder)


def _natural(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _current_release() -> str:
    depends = output(["apt-cache", "depends", "linux-image-amd64"])
    match = re.search(r"Depends: linux-image-(\S+)", depends)
    if match is None:
        raise RuntimeError(f"which kernel is current? apt-cache depends says:\n{depends}")
    return match[1]


def ensure_built(kernel: Kernel) -> Built:
    """Return the modules and the first file system, built unless the cache has them."""
    sources = sorted(path for path in MODULE.iterdir() if path.is_file())
    key = hashlib.sha256(kernel.release.encode())
    for path in (*sources, INIT, Path(__file__)):
        key.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = cache_folder() / f"vm-modules-{key.hexdigest()[:12]}"

    def fill(new: Path) -> None:
        build = new / "build"
        shutil.copytree(MODULE, build)
        headers = Path("/usr/src") / f"linux-headers-{kernel.release}"
        run(["make", "-s", "-C", headers, f"M={build}", "KCFLAGS=-Werror", "modules"])
        for module in build.glob("*.ko"):
            module.rename(new / module.name)
        shutil.rmtree(build)
        _make_initrd(kernel, new / "initrd.gz")

    _made_once(folder, fill)
    return Built(folder)


def _make_initrd(kernel: Kernel, archive: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        modules = root / "modules"
        modules.mkdir()
        order: list[str] = []
        for module in _with_dependencies(kernel, FIRST_MODULES):
            shutil.copy(module, modules)
            order.append(module.name)
        (modules / "order").write_text("\n".join(order) + "\n")
        shutil.copy("/bin/busybox", root / "busybox")
        shutil.copy(INIT, root / "init")
        (root / "init").chmod(0o755)
        names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
        packed = root / "packed"
        run(["cpio", "-o", "-H", "newc", "--quiet", "-F", packed], cwd=root, stdin=names + "\n")
        archive.write_bytes(gzip.compress(packed.read_bytes(), 1))


def _with_dependencies(kernel: Kernel, names: tuple[str, ...]) -> list[Path]:
    """The modules' files in the order in which they have to be loaded."""
    found: dict[Path, None] = {}
    for name in names:
        where = ("-d", kernel.folder, "-S", kernel.release)
        for line in output(["modprobe", *where, "--show-depends", name]).splitlines():
            word, _, path = line.strip().partition(" ")
            if word == "insmod":
                found[Path(path)] = None
    return list(found)


def _made_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder of the cache in one step, so that half of one is never used."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vm-") as work:
        new = Path(work) / folder.name
        new.mkdir()
        fill(new)
        new.rename(folder)
