"""The spec as a file in a directory that CDI engines read."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from .names import DEFAULT_KIND, split_kind
from .spec import Spec, to_text

DEFAULT_DIRECTORY = Path("/var/run/cdi")
_FILE_MODE = 0o644
_DIRECTORY_MODE = 0o755
# Nothing that somebody put in the file's place is followed, or waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CdiError(Exception):
    """The file could not be written or removed; the text says which, and why."""


class CdiDirectory:
    """One spec's place: `file` is VENDOR-CLASS.json in `path`, as CDI recommends; with
    `part`, which has to be fit for a file's name, VENDOR-CLASS-PART.json.

    Raises IllegalNameError for a wrong `kind`.
    """

    def __init__(
        self, path: Path = DEFAULT_DIRECTORY, kind: str = DEFAULT_KIND, part: str = ""
    ) -> None:
        self.path = path
        self.kind = kind
        self.file = path / ("-".join([*split_kind(kind), *filter(None, [part])]) + ".json")

    def write(self, spec: Spec) -> bool:
        """Puts `spec` in force; False when it was already. Raises CdiError.

        A reader sees the old file or the new one, whole. A link in the file's place is
        replaced, and what it points at is left alone.
        """
        data = to_text(spec).encode()
        try:
            if self._holds(data):
                return False
            make_directory(self.path)
            self._replace(data)
        except OSError as error:
            raise CdiError(f"cannot write {self.file}: {error.strerror}") from error
        return True

    def remove(self) -> bool:
        """Takes the spec away; False when there was none. Raises CdiError."""
        try:
            self.file.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise CdiError(f"cannot remove {self.file}: {error.strerror}") from error
        return True

    def identity(self) -> tuple[int, ...] | None:
        """Differs when the file was replaced or changed; None when it is not there."""
        try:
            status = self.file.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size, status.st_mode

    def _holds(self, data: bytes) -> bool:
        try:
            fd = os.open(self.file, _READ)
        except OSError:
            return False  # missing, a link, or unreadable: it is to be replaced
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            return (
                stat.S_ISREG(status.st_mode)
                and stat.S_IMODE(status.st_mode) == _FILE_MODE
                and status.st_size == len(data)
                and file.read(len(data) + 1) == data
            )

    def _replace(self, data: bytes) -> None:
        # Engines read *.json and *.yaml. The name is new each time: during an update two
        # instances of the plugin write here, both with process id 1 of their containers.
        new = self.path / f".{self.file.name}.{os.urandom(6).hex()}"
        try:
            with os.fdopen(os.open(new, _WRITE, _FILE_MODE), "wb") as file:
                os.fchmod(file.fileno(), _FILE_MODE)  # whatever the umask is
                file.write(data)
            # No fsync: /var/run is in memory and starts empty at boot, as the plugin does.
            new.replace(self.file)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise


def make_directory(path: Path) -> None:
    """A directory that engines can read, unless there is one. Raises OSError."""
    try:
        path.mkdir(mode=_DIRECTORY_MODE, parents=True)
    except FileExistsError:
        return
    path.chmod(_DIRECTORY_MODE)  # whatever the umask is
