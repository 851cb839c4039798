"""The image's base: a Debian 12 root with Python and nothing else.

`mmdebstrap --variant=extract` fetches and verifies the packages and unpacks them; what the
plugin needs is then copied over to an empty root. So there is no shell, no package manager
and no perl in the image, and nothing of OpenSSL, which Python loads with asyncio if it is
there (8 MiB of memory for a program that speaks to Unix sockets only).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SUITE = "bookworm"
PYTHON = "python3.11"
PACKAGES = (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib")

# Packages of which at least one file is in the image; the rest of what mmdebstrap unpacks
# (dpkg, perl's friends, OpenSSL, ...) is left behind.
KEPT_PACKAGES = (
    "libc6",
    "libexpat1",
    "libffi8",
    f"lib{PYTHON}-minimal",
    f"lib{PYTHON}-stdlib",
    f"{PYTHON}-minimal",
    "zlib1g",
)

# Shared libraries, by soname, that Python, the extension modules below and the wheels link.
LIBRARIES = (
    "libc.so.6",
    "libdl.so.2",
    "libexpat.so.1",
    "libffi.so.8",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libz.so.1",
)

# Extension modules that are kept; most others are built into the interpreter.
EXTENSIONS = (
    "_asyncio",
    "_contextvars",
    "_ctypes",
    "_decimal",
    "_json",
    "_queue",
    "_typing",
    "_zoneinfo",
    "mmap",
    "resource",
    "termios",
)

# Parts of the standard library that a device plugin has no use for.
DROPPED_MODULES = _words(
    """
    EXTERNALLY-MANAGED LICENSE.txt __hello__.py __phello__ _aix_support.py _bootsubprocess.py
    _distutils_system_mod.py _osx_support.py aifc.py antigravity.py asynchat.py asyncore.py
    audioop cProfile.py cgi.py cgitb.py chunk.py code.py codeop.py crypt.py curses
    dbm distutils doctest.py ensurepip ftplib.py http/cookiejar.py http/server.py idlelib
    imaplib.py imghdr.py lib2to3 mailbox.py mailcap.py modulefinder.py multiprocessing netrc.py
    nntplib.py pdb.py pipes.py poplib.py profile.py pstats.py pty.py pyclbr.py pydoc.py
    pydoc_data rlcompleter.py sitecustomize.py smtpd.py smtplib.py sndhdr.py sqlite3 ssl.py
    sunau.py tabnanny.py telnetlib.py test this.py timeit.py tkinter trace.py turtle.py
    turtledemo unittest uu.py venv wave.py webbrowser.py wsgiref xdrlib.py xml xmlrpc
    """
)

# Text encodings that are kept: Unicode's, and those that a host's tools may print.
ENCODINGS = _words(
    """
    __init__ aliases ascii charmap cp1252 cp437 idna iso8859_1 latin_1 punycode
    raw_unicode_escape unicode_escape utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le
    utf_8 utf_8_sig
    """
)

ETC = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

# Empty directories that a container's engine mounts on or a program expects.
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "var/lib/kubelet/device-plugins")


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package that has files in the image."""

    name: str
    version: str
    control: str


def make_base(target: Path, work: Path) -> None:
    """Make the base root at ``target``; ``work`` is scratch space."""
    work.mkdir(parents=True, exist_ok=True)
    unpacked = work / "debian"
    _unpack(unpacked)
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
    _copy_libraries(unpacked, target)
    shutil.copy2(unpacked / "usr/bin" / PYTHON, target / "usr/bin" / PYTHON)
    (target / "usr/bin/python3").symlink_to(PYTHON)
    _copy_library_modules(unpacked / "usr/lib" / PYTHON, target / "usr/lib" / PYTHON)
    packages = _package_records(unpacked)
    for package in packages:
        # The form scanners know from other images without a package manager.
        record = target / "var/lib/dpkg/status.d" / package.name
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(package.control)
        notice = unpacked / "usr/share/doc" / package.name / "copyright"
        if notice.exists():
            place = target / "usr/share/doc" / package.name
            place.mkdir(parents=True)
            shutil.copy(notice, place / "copyright")
    compile_python(target, [f"/usr/lib/{PYTHON}"])


def _unpack(target: Path) -> None:
    # Package archives are kept (cleanup/apt is skipped) for their control data: nothing is
    # configured, so there is no package database to read it from.
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=extract"),
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


def _copy_libraries(source: Path, target: Path) -> None:
    for soname in LIBRARIES:
        found = [*source.glob(f"usr/lib/*-linux-gnu/{soname}"), *source.glob(f"lib/*/{soname}")]
        place = target / "usr/lib" / found[0].parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy2(found[0].resolve(), place / soname)
    loaders = [*source.glob("lib64/ld-linux*"), *source.glob("lib/ld-linux*")]
    for loader in loaders:
        place = target / "usr" / loader.parent.name / loader.name
        shutil.copy2(_resolve_in(source, loader), place)


def _resolve_in(root: Path, path: Path) -> Path:
    """Follow a symbolic link whose absolute target means a path inside ``root``."""
    while path.is_symlink():
        link = path.readlink()
        path = root / link.relative_to("/") if link.is_absolute() else path.parent / link
    return path


def _copy_library_modules(source: Path, target: Path) -> None:
    def is_dropped(inside: Path, name: str) -> bool:
        stem = name.partition(".")[0]
        return (
            name == "__pycache__"
            or str(inside / name) in DROPPED_MODULES
            or (str(inside) == "lib-dynload" and stem not in EXTENSIONS)
            or (str(inside) == "encodings" and stem not in ENCODINGS)
            or (str(inside) == "ctypes" and name in ("test", "macholib"))
        )

    def dropped(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(source)
        return {name for name in names if is_dropped(inside, name)}

    # Debian keeps some of these as absolute links into /etc: what they point at is wanted
    # by nobody (sitecustomize.py), and a missing target is no error then.
    shutil.copytree(source, target, ignore=dropped, ignore_dangling_symlinks=True)


def _package_records(unpacked: Path) -> list[Package]:
    records = []
    for archive in sorted((unpacked / "var/cache/apt/archives").glob("*.deb")):
        control = subprocess.run(
            ["dpkg-deb", "--field", str(archive)], check=True, capture_output=True, text=True
        ).stdout
        fields = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line[:40])
        if fields["Package"] in KEPT_PACKAGES:
            records.append(Package(fields["Package"], fields["Version"], control))
    return records


def run_in(root: Path, command: Sequence[str], stdin: bytes = b"") -> bytes:
    """Run a program of a root inside it and return its output; needs no privileges."""
    chroot = ["chroot", str(root), *command]
    if os.geteuid() != 0:
        chroot = ["unshare", "--map-root-user", *chroot]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "0"}
    return subprocess.run(
        chroot, check=True, input=stdin, stdout=subprocess.PIPE, env=environment
    ).stdout


def compile_python(root: Path, folders: Sequence[str]) -> None:
    """Byte-compile modules below folders of a root, with the root's own interpreter.

    Unchecked-hash files: they carry no time stamp, so they are reproducible, and an import
    does not even look at the source.
    """
    run_in(
        root,
        [
            *(f"/usr/bin/{PYTHON}", "-SsB", "-m", "compileall", "-q", "-f"),
            *("--invalidation-mode", "unchecked-hash", *folders),
        ],
    )


def gzip_in(root: Path, content: bytes) -> bytes:
    """Compress with the root's zlib, so that the digest does not depend on the builder's."""
    program = (
        "import gzip, sys; "
        "sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(), 9, mtime=0))"
    )
    return run_in(root, [f"/usr/bin/{PYTHON}", "-ISB", "-c", program], content)
