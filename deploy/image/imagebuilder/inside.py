"""Running an image's own programs: in its root, or on files of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .architecture import Architecture
from .contents import PYTHON

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "0"}


class Interpreter:
    """The Python of a root of this machine's kind, run where the files to work on are.

    The same interpreter and zlib make the same bytes, whatever the builder's own are, and
    for images of every architecture: byte code and gzip know none.
    """

    def __init__(self, root: Path, architecture: Architecture) -> None:
        """Take the root, which must be of this machine's architecture."""
        root = root.resolve()
        self._command = [
            str(root / architecture.loader),
            *("--library-path", str(root / "usr/lib" / architecture.triplet)),
            str(root / "usr/bin" / PYTHON),
            "-ISB",
        ]

    def run(self, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
        """Run it with some arguments and return what it prints."""
        return subprocess.run(
            [*self._command, *arguments],
            check=True,
            input=stdin,
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
        ).stdout

    def compile(self, root: Path, folder: str) -> None:
        """Byte-compile the modules below a folder of a root.

        Unchecked-hash files: they carry no time stamp, so they are reproducible, and an
        import does not even look at the source.
        """
        root = root.resolve()
        self.run(
            [
                *("-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"),
                *("-s", str(root), "-p", "/", str(root / folder)),
            ]
        )

    def gzip(self, content: bytes) -> bytes:
        """Compress with the root's zlib, as well as it can."""
        program = (
            "import gzip, sys; "
            "sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(), 9, mtime=0))"
        )
        return self.run(["-c", program], content)


def can_enter(architecture: Architecture) -> bool:
    """Return whether this machine can run programs of an architecture."""
    return architecture.is_native or shutil.which(architecture.emulator) is not None


def run_in(
    root: Path, architecture: Architecture, command: Sequence[str], *, as_nobody: bool = False
) -> bytes:
    """Run a program of a root inside it and return its output; needs no privileges.

    `as_nobody` is as user and group 65534, if this is root and so can become them.

    Another architecture's programs are run by the emulator, which is put into the root for
    as long as that takes.
    """
    emulator = None
    if not architecture.is_native:
        found = shutil.which(architecture.emulator)
        if found is None:
            raise FileNotFoundError(architecture.emulator)
        emulator = root / ".emulator"
        shutil.copy2(found, emulator)
        command = ["/.emulator", *command]
    is_root = os.geteuid() == 0
    nobody = ["--userspec=+65534:+65534", "--groups="] if as_nobody and is_root else []
    enter = ["chroot", *nobody, str(root), *command]
    if not is_root:
        enter = ["unshare", "--map-root-user", *enter]
    try:
        return subprocess.run(
            enter,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
        ).stdout
    finally:
        if emulator is not None:
            emulator.unlink()
