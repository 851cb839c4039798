"""Runs a command that sees a directory of ours as the kubelet's own.

    python default_path.py DIR COMMAND ARGS...

Many plugins have /var/lib/kubelet/device-plugins hard-wired. In a mount namespace of its
own, the command sees DIR there; nobody else does, and nothing stays behind. Needs
CAP_SYS_ADMIN; ends with 125 and a line that says why when it may not.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

DEFAULT_PATH = Path("/var/lib/kubelet/device-plugins")
NOT_PERMITTED = 125
#: To put before the directory and a command.
WRAPPER = (sys.executable, "-I", __file__)

_CLONE_NEWNS = 0x0002_0000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x4_0000
_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    try:
        enter(Path(arguments[0]))
    except OSError as error:
        print(f"--at-default-path: {error}", file=sys.stderr)
        return NOT_PERMITTED
    try:
        os.execvp(arguments[1], arguments[1:])  # noqa: S606  (no shell is what we want)
    except OSError as error:
        print(f"{arguments[1]}: {error}", file=sys.stderr)
        return 127


def enter(directory: Path, target: Path = DEFAULT_PATH) -> None:
    """This process sees `directory` at `target` from now on. Raises OSError."""
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", Path("/"), None, _MS_REC | _MS_PRIVATE)
    if not target.is_dir():
        _make_room(target)
    _mount(str(directory), target, None, _MS_BIND)


def _make_room(target: Path) -> None:
    """Makes `target` without touching the disk: a tmpfs over the nearest directory that
    exists, in which all that was there is mounted again."""
    base = target.parent
    while not base.is_dir():
        base = base.parent
    names = sorted(os.listdir(base))  # noqa: PTH208  (the directory is about to be hidden)
    below = os.open(base, os.O_PATH | os.O_DIRECTORY)
    try:
        _mount("tmpfs", base, "tmpfs", 0)
        for name in names:
            old, new = Path(f"/proc/self/fd/{below}/{name}"), base / name
            if old.is_symlink():
                new.symlink_to(old.readlink())
                continue
            if old.is_dir():
                new.mkdir()
            else:
                new.touch()
            _mount(str(old), new, None, _MS_BIND | _MS_REC)
    finally:
        os.close(below)
    target.mkdir(parents=True)


def _mount(source: str, target: Path, kind: str | None, flags: int) -> None:
    filesystem = None if kind is None else kind.encode()
    done = _libc.mount(os.fsencode(source), os.fsencode(target), filesystem, flags, None)
    _checked(done, f"mount on {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
