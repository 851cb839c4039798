"""The prepared claims: a CDI spec for each, which is the record of it, too.

One rename puts both in force, and one removal ends both. A record is of one boot: after
the next, whatever it says is over. All instances of the driver on a node have the same
records, and change them one at a time, under a lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..cdi.directory import CdiDirectory, CdiError, make_directory
from ..cdi.names import DEFAULT_KIND, device_name, qualified
from ..cdi.spec import Spec, mount_edit
from ..hardware.types import Mount
from .claims import ClaimReference
from .names import CLAIM_KIND, DRIVER

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Seconds that a change waits for those of other instances.
LOCK_TIMEOUT = 10.0
_PREFIX = CLAIM_KIND.replace("/", "-") + "-"
_LOCK = f".{DRIVER}.lock"
_MAX_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

T = TypeVar("T")


class RecordsError(Exception):
    """The records cannot be read or changed now; one line says why."""


@dataclass(frozen=True, slots=True)
class PreparedDevice:
    """A device of a slice that a claim has, and the `chips` behind it by id."""

    request: str
    pool: str
    device: str
    chips: tuple[str, ...]
    share_id: str | None = None
    admin: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A prepared claim, in the order of its results. `spec` is the file's content."""

    reference: ClaimReference
    devices: tuple[PreparedDevice, ...]
    boot_id: str
    spec: Spec

    def cdi_devices(self, number: int, kind: str = DEFAULT_KIND) -> tuple[str, ...]:
        """What an engine is asked for with the device of this number: its chips, and with
        the first device of a request that request's environment. The first name is the
        device's own, by which the kubelet knows its health."""
        device = self.devices[number]
        names = [qualified(kind, device_name(chip)) for chip in device.chips]
        if device.request not in {other.request for other in self.devices[:number]}:
            names.append(qualified(CLAIM_KIND, _request_name(self.reference, device.request)))
        return tuple(names)


@dataclass(frozen=True, slots=True)
class RequestEdits:
    """What the containers that use a request get besides its devices."""

    envs: Mapping[str, str]
    mounts: Sequence[Mount] = ()


def make_record(
    reference: ClaimReference,
    devices: Sequence[PreparedDevice],
    edits: Mapping[str, RequestEdits],
    boot_id: str,
) -> ClaimRecord:
    """`edits` by request. Pure."""
    spec = {
        "cdiVersion": "0.6.0",  # the first with annotations
        "kind": CLAIM_KIND,
        "annotations": {
            f"{DRIVER}/namespace": reference.namespace,
            f"{DRIVER}/name": reference.name,
            f"{DRIVER}/uid": reference.uid,
            f"{DRIVER}/boot-id": boot_id,
            f"{DRIVER}/devices": json.dumps([_to_json(device) for device in devices]),
        },
        "devices": [
            {
                "name": _request_name(reference, request),
                "containerEdits": {
                    "env": [f"{name}={value}" for name, value in sorted(edit.envs.items())],
                    **(
                        {"mounts": [mount_edit(mount) for mount in edit.mounts]}
                        if edit.mounts
                        else {}
                    ),
                },
            }
            for request, edit in edits.items()
        ],
    }
    return ClaimRecord(reference, tuple(devices), boot_id, spec)


def parse_record(text: bytes) -> ClaimRecord:
    """Raises ValueError. What it does not know it leaves alone: a later release may
    have written it."""
    spec = json.loads(text)
    try:
        notes = spec["annotations"]
        reference = ClaimReference(
            str(notes[f"{DRIVER}/namespace"]),
            str(notes[f"{DRIVER}/name"]),
            str(notes[f"{DRIVER}/uid"]),
        )
        devices = tuple(_from_json(item) for item in json.loads(notes[f"{DRIVER}/devices"]))
        boot_id = str(notes[f"{DRIVER}/boot-id"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no record of a claim: {error!r}") from None
    return ClaimRecord(reference, devices, boot_id, spec)


def _to_json(device: PreparedDevice) -> Mapping[str, Any]:
    optional = {"share": device.share_id, "admin": device.admin or None}
    return {
        "request": device.request,
        "pool": device.pool,
        "device": device.device,
        "chips": list(device.chips),
        **{key: value for key, value in optional.items() if value is not None},
    }


def _from_json(item: Any) -> PreparedDevice:
    share = item.get("share")
    return PreparedDevice(
        str(item["request"]),
        str(item["pool"]),
        str(item["device"]),
        tuple(str(chip) for chip in item["chips"]),
        None if share is None else str(share),
        item.get("admin") is True,
    )


def _request_name(reference: ClaimReference, request: str) -> str:
    return f"{reference.uid}-{request}"


def read_boot_id(path: Path = BOOT_ID) -> str:
    """The kernel's id of this boot, empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Records:
    """All of them, by uid. `broken` are files with the name of a record which hold none."""

    by_uid: Mapping[str, ClaimRecord]
    broken: tuple[str, ...] = ()


class RecordStore:
    """The records in `directory`. Its methods block: call them in a thread."""

    def __init__(self, directory: Path, boot_id: str, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self.directory = directory
        self.boot_id = boot_id
        self._lock_timeout = lock_timeout

    def load(self) -> Records:
        """Those of this boot. Files that hold no record are left alone: one of them
        concerns one claim. Raises RecordsError."""
        found: dict[str, ClaimRecord] = {}
        broken: list[str] = []
        for path in self._files():
            record = self._read(path)
            if record is None or path.name != f"{_PREFIX}{record.reference.uid}.json":
                broken.append(path.name)
            elif record.boot_id == self.boot_id:
                found[record.reference.uid] = record
        return Records(found, tuple(broken))

    def change(self, decide: Callable[[Records], T]) -> T:
        """Calls `decide` with the records, while no instance can change them. It may call
        `write` and `remove`. Raises RecordsError, and what `decide` raises."""
        with self._locked():
            return decide(self.load())

    def write(self, record: ClaimRecord) -> bool:
        """Puts it in force; False when it was already. Raises RecordsError."""
        try:
            return self._place(record.reference.uid).write(record.spec)
        except CdiError as error:
            raise RecordsError(str(error)) from error

    def remove(self, uid: str) -> bool:
        """Ends it; False when there was none. Raises RecordsError."""
        try:
            return self._place(uid).remove()
        except CdiError as error:
            raise RecordsError(str(error)) from error

    def remove_void(self) -> tuple[ClaimRecord, ...]:
        """Removes the records of other boots, whose containers have all ended."""

        def remove(_: Records) -> tuple[ClaimRecord, ...]:
            void = []
            for path in self._files():
                record = self._read(path)
                if record is not None and record.boot_id != self.boot_id:
                    self.remove(record.reference.uid)
                    void.append(record)
            return tuple(void)

        return self.change(remove)

    def identity(self) -> object:
        """Differs after the directory was emptied, or made anew, by somebody who removed
        the lock with all the rest, which no instance does."""
        try:
            status = (self.directory / _LOCK).lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def _place(self, uid: str) -> CdiDirectory:
        return CdiDirectory(self.directory, CLAIM_KIND, uid)

    def _files(self) -> list[Path]:
        try:
            names = [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RecordsError(f"cannot read {self.directory}: {error.strerror}") from error
        return [
            self.directory / name
            for name in sorted(names)
            if name.startswith(_PREFIX) and name.endswith(".json")
        ]

    @staticmethod
    def _read(path: Path) -> ClaimRecord | None:
        try:
            with os.fdopen(os.open(path, _READ), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                return parse_record(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.directory / _LOCK
        deadline = time.monotonic() + self._lock_timeout
        fd = -1
        try:
            while fd < 0:
                fd = self._try_lock(path)
                if fd < 0 and time.monotonic() > deadline:
                    text = f"{path} is locked by another instance for {self._lock_timeout:g} s"
                    raise RecordsError(text)
                if fd < 0:
                    time.sleep(0.002)
            yield
        finally:
            if fd >= 0:
                os.close(fd)  # which ends the lock

    def _try_lock(self, path: Path) -> int:
        """A descriptor with the lock; -1 while another instance has it."""
        try:
            make_directory(self.directory)
            fd = os.open(path, _MAKE, 0o600)
        except OSError as error:
            raise RecordsError(f"cannot open {path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock on a file that was removed meanwhile keeps nobody out.
            if os.path.samestat(os.fstat(fd), path.lstat()):
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError as error:
            os.close(fd)
            raise RecordsError(f"cannot lock {path}: {error.strerror}") from error
        os.close(fd)
        return -1
