"""Labels by way of Node Feature Discovery: a file that its worker reads.

NFD needs `key=value` lines and nothing else: versions before 0.14 take a comment for
a label. A file whose name begins with a dot is none to it (since 0.15; before that it
would read the very same labels from it), so that is what a half-written one is called.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

DEFAULT_FILE = Path("/etc/kubernetes/node-feature-discovery/features.d/moffett-spu")
_MAX = 65_536  # what NFD reads at most


class FeatureFile:
    """The labels in a file of NFD's features.d, replaced as a whole when they change.

    No labels, no file. It stays when the plugin ends: during an update the node's
    labels must not come and go.
    """

    def __init__(self, path: Path = DEFAULT_FILE) -> None:
        self.path = path
        self._told: str | None = None

    async def put(self, labels: Mapping[str, str]) -> None:
        try:
            changed = self.write(labels)
        except OSError as error:
            self._tell(error)
            return
        if changed or self._told is not None:
            log.info("nfd-file-written", extra={"file": self.path, "labels": len(labels)})
        self._told = None

    def write(self, labels: Mapping[str, str]) -> bool:
        """Whether the file had to be changed. Raises OSError.

        The folder is opened once and everything done in it by name, and no name in it
        is followed if it is a symbolic link.
        """
        text = "".join(f"{name}={value}\n" for name, value in sorted(labels.items()))
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not text:
                return _remove(folder, self.path.name)
            if _read(folder, self.path.name) == text.encode():
                return False
            _replace(folder, self.path.name, text.encode())
            return True
        finally:
            os.close(folder)

    def _tell(self, error: OSError) -> None:
        """Once for each cause."""
        if self._told == (cause := error.strerror or str(error)):
            return
        self._told = cause
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR)
        remedy = (
            f"install Node Feature Discovery, or mount {self.path.parent} from the host"
            if absent
            else f"let the plugin write to {self.path.parent}"
        )
        log.warning(
            "nfd-file-not-written",
            extra={
                "file": self.path,
                "error": cause,
                "effect": "the node's labels stay as they are; tried again",
                "remedy": remedy,
            },
        )


def _read(folder: int, name: str) -> bytes | None:
    """The content of an ordinary file; None for anything else that has the name."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None
    try:
        return os.read(file, _MAX) if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)


def _replace(folder: int, name: str, content: bytes) -> None:
    # One name for all: another would stay behind when a copy is killed. Two copies that
    # meet here during an update get out of each other's way by trying again.
    for attempt in range(3):
        try:
            _replace_once(folder, name, f".{name}.new", content)
        except (FileExistsError, FileNotFoundError):
            if attempt == 2:
                raise
        else:
            return


def _replace_once(folder: int, name: str, new: str, content: bytes) -> None:
    _remove(folder, new)  # left by a copy that was killed, or somebody's trap
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(new, flags, 0o644, dir_fd=folder)
    try:
        os.fchmod(file, 0o644)  # NFD's worker may run as another user
        if os.write(file, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _remove(folder, new)
        raise
    finally:
        os.close(file)


def _remove(folder: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True
