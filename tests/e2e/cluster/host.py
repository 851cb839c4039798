"""What the cluster changes on the machine, and putting all of it back.

A claim is recorded before anything is touched: which paths were not there, which kernel
settings had which value. `clean` works from that record and from names that only this tier
uses, so it clears up after a run that crashed or was killed just as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from .layout import Layout
from .shell import run, wait_for

LOCK = Path("/run/lock/moffett-e2e.lock")

# The kubelet sets the first six, the pod network's bridge plugin the last.
SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
)

# Written by a kubelet whatever its configuration: another kubelet's must not be touched.
KUBELET_LOGS = (Path("/var/log/pods"), Path("/var/log/containers"))

# Made by containerd's shims, CNI plugins and the plugin. Shared with any other engine on the
# machine, so they are removed only if they were not there before.
BYPRODUCTS = (Path("/run/containerd"), Path("/var/lib/cni"), Path("/var/lib/moffett-device-plugin"))


class HostInUseError(RuntimeError):
    """The machine has a kubelet, or another run of this tier, that must not be disturbed."""


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Hold the machine for one run of the tier."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostInUseError("another run of the end-to-end tests is under way") from None
        yield


def check(layout: Layout) -> None:
    """Raise HostInUseError if the machine must not be used; changes nothing."""
    if os.geteuid() != 0:
        raise HostInUseError("the end-to-end tests must run as root")
    with lock():
        if layout.claim.exists():
            return
    for folder in (layout.kubelet, *KUBELET_LOGS):
        if folder.exists() and any(folder.iterdir()):
            raise HostInUseError(
                f"{folder} is not empty and not from these tests: is this machine a node of a "
                "real cluster? Not touching it."
            )


def claim(layout: Layout) -> None:
    """Record the machine's state before anything of it is changed."""
    owned = (layout.kubelet, *KUBELET_LOGS, *BYPRODUCTS)
    record = {
        "absent": [str(path) for path in owned if not path.exists()],
        "sysctls": {name: (Path("/proc/sys") / name).read_text().strip() for name in SYSCTLS},
    }
    layout.state.mkdir(parents=True, exist_ok=True)
    layout.claim.write_text(json.dumps(record))


def make_network(layout: Layout) -> None:
    """Make the network namespace, with the API server's address in it."""
    run(["ip", "netns", "add", layout.name])
    run(["ip", "-n", layout.name, "link", "set", "lo", "up"])
    run(["ip", "-n", layout.name, "address", "add", f"{layout.api_address}/32", "dev", "lo"])


def make_cgroups(layout: Layout) -> None:
    """Make the cgroup that holds all pods: the kubelet wants it to exist."""
    for mount in cgroup_mounts():
        (mount / layout.name).mkdir(exist_ok=True)


def share_kubelet_folder(layout: Layout) -> None:
    """Make the kubelet's folder a mount that is shared between mount namespaces.

    What a kubelet mounts there then reaches containerd from whichever namespace it runs in.
    """
    layout.kubelet.mkdir(parents=True, exist_ok=True)
    run(["mount", "--bind", layout.kubelet, layout.kubelet])
    run(["mount", "--make-shared", layout.kubelet])


def snapshotter(layout: Layout) -> str:
    """Return the containerd snapshotter that works here: overlayfs does not stack."""
    deepest = max(
        (mount for mount in mounts() if layout.state.is_relative_to(mount[0])),
        key=lambda mount: len(mount[0].parts),
    )
    return "native" if deepest[1] == "overlay" else "overlayfs"


def clean(layout: Layout) -> None:
    """Undo everything; does nothing if there is nothing to undo."""
    if not layout.claim.exists():
        return
    record = json.loads(layout.claim.read_text())
    _kill_everything(layout)
    _unmount_below(layout.state, layout.kubelet)
    if layout.network_namespace.exists():
        run(["ip", "netns", "delete", layout.name])
    _remove_cgroups(layout)
    for name, value in record["sysctls"].items():
        (Path("/proc/sys") / name).write_text(value)
    _remove_dead_sockets(Path("/run/containerd/s"))
    for path in (layout.kubelet, *KUBELET_LOGS):
        _empty(path)
    for path in map(Path, record["absent"]):
        if path in BYPRODUCTS:
            _empty(path)
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()
    # The claim goes last: until then a later run knows that all this is ours.
    for path in layout.state.iterdir():
        if path != layout.claim:
            _remove(path)
    shutil.rmtree(layout.state)


def processes(layout: Layout) -> set[int]:
    """Return the ids of all processes of the cluster: services, shims and containers.

    Services and shims are those in the network namespace, containers those in the cgroup.
    """
    found = set()
    if layout.network_namespace.exists():
        listing = run(["ip", "netns", "pids", layout.name], check=False).stdout
        found |= {int(pid) for pid in listing.split()}
    for mount in cgroup_mounts():
        # os.walk, not rglob: groups vanish while they are walked.
        for folder, _, _ in os.walk(mount / layout.name):
            with contextlib.suppress(OSError):
                procs = Path(folder, "cgroup.procs").read_text()
                found |= {int(pid) for pid in procs.split()}
    return {pid for pid in found if _lives(pid)}


def _lives(pid: int) -> bool:
    """Tell whether a process is more than a zombie (which init may take seconds to reap)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie that still has threads is on its way out, and may hold sockets and mounts.
    return state != "Z" or threads > 1


def end_containers(layout: Layout, keep: set[int]) -> None:
    """Kill all of the cluster's processes but those, and lose what containerd and the
    kubelet have in memory only."""
    _kill_everything(layout, keep)
    inside = [place for place, _ in mounts() if layout.kubelet in place.parents]
    _unmount_below(layout.containerd / "state", *inside)
    _remove(layout.containerd / "state")


def _kill_everything(layout: Layout, keep: set[int] | None = None) -> None:
    def none_left() -> bool:
        left = processes(layout) - (keep or set())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_for("every process of the cluster to end", none_left, seconds=30)


def mounts() -> list[tuple[Path, str]]:
    """Return the mount points this process sees, with their file system types."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        place = fields.split()[4].encode().decode("unicode_escape")
        found.append((Path(place), rest.split()[0]))
    return found


def cgroup_mounts() -> list[Path]:
    """Return where control groups are mounted: one place with v2, many with v1."""
    return [place for place, kind in mounts() if kind in ("cgroup", "cgroup2")]


def _unmount_below(*roots: Path) -> None:
    places = [place for place, _ in mounts() if any(place.is_relative_to(root) for root in roots)]
    for place in sorted(places, key=lambda path: len(path.parts), reverse=True):
        run(["umount", "--lazy", place], check=False)


def _remove_cgroups(layout: Layout) -> None:
    def all_gone() -> bool:
        left = False
        for mount in cgroup_mounts():
            top = mount / layout.name
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    left = True
        return not left

    wait_for("the cgroups to be removed", all_gone, seconds=10)


def _remove_dead_sockets(folder: Path) -> None:
    """Remove the sockets of shims that were killed; those of living ones answer."""
    for path in folder.glob("*"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            except OSError:
                continue


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # One file system: should a mount have survived, nothing behind it is deleted.
        run(["rm", "-rf", "--one-file-system", path])
    else:
        path.unlink()


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            _remove(path)
