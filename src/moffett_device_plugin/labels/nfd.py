"""Labels through Node Feature Discovery: a feature file that its worker reads.

NFD expects `key=value` lines and nothing else: versions before 0.14 take a comment for a
label. Since 0.15 it ignores files whose name begins with a dot, so the temporary file has
such a name; an older version would read the same labels from it.
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
_MAX = 65_536  # the limit of NFD


class FeatureFile:
    """A file in NFD's features.d directory, replaced atomically when the labels change.

    Without labels there is no file. It is not removed when the plugin exits: labels must
    not disappear during an update.
    """

    def __init__(self, path: Path = DEFAULT_FILE) -> None:
        self.path = path
        self._reported: str | None = None  # the last error in the log

    async def put(self, labels: Mapping[str, str]) -> None:
        try:
            changed = self.write(labels)
        except OSError as error:
            self._report(error)
            return
        if changed or self._reported is not None:
            log.info("nfd-file-written", extra={"file": self.path, "labels": len(labels)})
        self._reported = None

    def write(self, labels: Mapping[str, str]) -> bool:
        """Returns whether the file was changed. Raises OSError.

        All access is relative to one descriptor of the directory, and symbolic links in
        it are not followed.
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

    def _report(self, error: OSError) -> None:
        """Logs each cause once."""
        if self._reported == (cause := error.strerror or str(error)):
            return
        self._reported = cause
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
                "effect": "the node keeps its labels; the plugin retries",
                "remedy": remedy,
            },
        )


def _read(folder: int, name: str) -> bytes | None:
    """The content of a regular file; None for anything else."""
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
    # A fixed temporary name, so that a killed instance leaves at most one file. Two instances
    # can collide here during an update: retry.
    for attempt in range(3):
        try:
            _replace_once(folder, name, f".{name}.new", content)
        except (FileExistsError, FileNotFoundError):
            if attempt == 2:
                raise
        else:
            return


def _replace_once(folder: int, name: str, new: str, content: bytes) -> None:
    _remove(folder, new)  # left by a killed instance, or placed by someone else
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
