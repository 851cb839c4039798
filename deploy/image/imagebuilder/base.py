"""The image's base: a Debian 12 root with Python and nothing else.

`mmdebstrap --variant=extract` fetches and verifies the packages and unpacks them; what the
plugin needs (`contents.py`) is then copied over to an empty root. So there is no shell, no
package manager and no perl in the image. Nothing of the packages is run, so they may be
another architecture's.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .architecture import Architecture
from .contents import (
    DROPPED_MODULES,
    ENCODINGS,
    ETC,
    EXTENSIONS,
    FOLDERS,
    KEPT_PACKAGES,
    LIBRARIES,
    PACKAGES,
    PYTHON,
    SUITE,
)

_COMMON_LICENCES = "usr/share/common-licenses"


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package that has files in the image.

    `sha256` is its archive's, `notice` the text of its copyright file.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    license: str
    notice: str


def make_base(target: Path, work: Path, architecture: Architecture) -> tuple[Package, ...]:
    """Make the base root at ``target``, not compiled yet; ``work`` is scratch space."""
    work.mkdir(parents=True, exist_ok=True)
    unpacked = work / "debian"
    _unpack(unpacked, architecture)
    target.mkdir(parents=True)
    for name in FOLDERS:
        (target / name).mkdir(parents=True)
    (target / "tmp").chmod(0o1777)
    for name, text in ETC.items():
        (target / name).write_text(text)
    # Merged /usr, as in Debian 12, so that both spellings of every path work.
    for name in ("bin", "lib", "lib64", "sbin"):
        (target / "usr" / name).mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(f"usr/{name}")
    _copy_libraries(unpacked, target, architecture)
    _copy_library_modules(unpacked / "usr/lib" / PYTHON, target / "usr/lib" / PYTHON)
    make_data(target / "usr/lib")
    (target / architecture.loader).chmod(0o755)
    shutil.copy2(unpacked / "usr/bin" / PYTHON, target / "usr/bin" / PYTHON)
    (target / "usr/bin/python3").symlink_to(PYTHON)
    packages = tuple(
        _record_package(archive, unpacked, target)
        for archive in _archives(unpacked / "var/cache/apt/archives")
    )
    _copy_licences(unpacked, target, "\n".join(package.notice for package in packages))
    return packages


def make_data(folder: Path) -> None:
    """Take the right to be run from all files below a folder: modules and libraries need none."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)


def _unpack(target: Path, architecture: Architecture) -> None:
    # Package archives are kept (cleanup/apt is skipped) for their control data: nothing is
    # configured, so there is no package database to read it from.
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=extract"),
            f"--architectures={architecture.name}",
            *(f"--include={','.join(PACKAGES)}", "--skip=cleanup/apt,download/empty"),
            *(SUITE, str(target), *_sources()),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def _sources() -> list[str]:
    """Return the machine's own Debian 12 sources, or nothing for mmdebstrap's default."""
    listing = subprocess.run(
        [
            *("apt-get", "indextargets", "Created-By: Packages", "--format"),
            "$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
        ],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    lines: dict[str, None] = {}
    for row in listing.splitlines():
        origin, codename, uri, release, component = row.split("|")
        if origin == "Debian" and codename.startswith(SUITE) and component == "main":
            lines[f"deb {uri} {release} {component}"] = None
    return list(lines)


def _copy_libraries(source: Path, target: Path, architecture: Architecture) -> None:
    place = target / "usr/lib" / architecture.triplet
    place.mkdir(parents=True)
    for soname in LIBRARIES:
        folders = (source / "usr/lib" / architecture.triplet, source / "lib" / architecture.triplet)
        found = next(folder / soname for folder in folders if (folder / soname).exists())
        shutil.copy2(found.resolve(), place / soname)
    loader = Path(architecture.loader)
    found = next(
        path for path in (source / loader, source / loader.relative_to("usr")) if path.exists()
    )
    shutil.copy2(found.resolve(), target / loader)


def _copy_library_modules(source: Path, target: Path) -> None:
    def is_dropped(inside: Path, name: str) -> bool:
        stem = name.partition(".")[0]
        return (
            name == "__pycache__"
            or name.startswith("_sysconfigdata_")  # how Python was compiled
            or str(inside / name) in DROPPED_MODULES
            or (str(inside) == "lib-dynload" and stem not in EXTENSIONS)
            or (str(inside) == "encodings" and stem not in ENCODINGS)
            or (str(inside) == "ctypes" and name in ("test", "macholib", "_aix.py"))
        )

    def dropped(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(source)
        return {name for name in names if is_dropped(inside, name)}

    # Debian keeps some of these as absolute links into /etc: what they point at is wanted
    # by nobody (sitecustomize.py), and a missing target is no error then.
    shutil.copytree(source, target, ignore=dropped, ignore_dangling_symlinks=True)


def _archives(folder: Path) -> Sequence[Path]:
    kept = [path for path in folder.glob("*.deb") if path.name.split("_")[0] in KEPT_PACKAGES]
    return sorted(kept)


def _record_package(archive: Path, unpacked: Path, target: Path) -> Package:
    """Put a package's status and licences where scanners and people look for them."""
    control = subprocess.run(
        ["dpkg-deb", "--field", str(archive)], check=True, capture_output=True, text=True
    ).stdout
    fields = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line[:40])
    name = fields["Package"]
    # The form scanners know from other images without a package manager.
    record = target / "var/lib/dpkg/status.d" / name
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(control)
    notice = unpacked / "usr/share/doc" / name / "copyright"
    place = target / "usr/share/doc" / name / "copyright"
    place.parent.mkdir(parents=True)
    shutil.copy(notice, place)
    return Package(
        name=name,
        version=fields["Version"],
        architecture=fields["Architecture"],
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        license=KEPT_PACKAGES[name],
        notice=notice.read_text(),
    )


def _copy_licences(source: Path, target: Path, notices: str) -> None:
    """Copy the texts that Debian has once for all the packages whose notices refer to them."""
    place = target / _COMMON_LICENCES
    place.mkdir(parents=True)
    for text in sorted((source / _COMMON_LICENCES).iterdir()):
        # "GPL-2" is not "GPL-2.1", nor "GPL"; a full stop may end a sentence.
        if re.search(rf"/{_COMMON_LICENCES}/{re.escape(text.name)}(?![\w-]|\.\d)", notices):
            shutil.copy(text.resolve(), place / text.name)
