"""A CDI engine that is not ours: podman runs containers with devices by their CDI names,
from the spec that the plugin writes for a host's sysfs tree and device nodes.

Needs no cluster. podman runs in a mount namespace of its own, where `/run` has nothing but
the spec and `/dev` the usual nodes and the fake host's, with all of its state in the test's
folder and its cgroups under a name of ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster.fake_host import Chip, FakeHost, free_major, two_s30_cards
from cluster.images import BUSYBOX
from cluster.shell import run
from conftest import ROOT

KIND = "moffett.ai/spu"
CGROUP = "moffett-e2e-podman"
CONTROL = "spu-e2e-control"

# What the plugin does after a look at the bus. Arguments: host root, directory, control node.
WRITE_SPEC = """
import sys
from pathlib import Path
from moffett_device_plugin.cdi.directory import CdiDirectory
from moffett_device_plugin.cdi.writer import SpecWriter
from moffett_device_plugin.hardware import Look
from moffett_device_plugin.hardware.device_nodes import NodeSettings
from moffett_device_plugin.hardware.types import Mount
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus

root, directory, control = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sola = Mount(str(root / "usr/local/sola-3.5.3"), "/usr/local/sola")
# 0.5.0: the podman of Debian 12 refuses files of any later version.
keeper = SpecWriter(CdiDirectory(directory), lambda: [sola], at_least="0.5.0")
scan = SysfsHardware(root, smi="none", nodes=NodeSettings(control=(control,))).scan(Look())
sys.exit(not keeper.ensure(observe_bus(Snapshot(), scan)))
"""

# In its own mount namespace. Arguments: the spec's directory, the nodes', and the command.
IN_NAMESPACE = """
set -eu
specs=$1; nodes=$2; shift 2
mount -t tmpfs tmpfs /run
mkdir -p /var/run/cdi
mount --bind "$specs" /var/run/cdi
mkdir /run/dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$nodes/." /run/dev
mount -t tmpfs tmpfs /dev
cp -a /run/dev/. /dev
mkdir /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
exec "$@"
"""

# In the container: its SPU nodes, and what the kernel says when each node is opened, its own
# and copies that it makes itself of all six. Arguments: major, then the minors.
LOOK = """
set -u
major=$1; shift
for node in /dev/spu-*; do echo "node $node $(cat $node 2>&1)"; done
for minor; do mknod /tmp/$minor c $major $minor; echo "copy $minor $(cat /tmp/$minor 2>&1)"; done
echo "sola $(ls /usr/local/sola) $(touch /usr/local/sola/new 2>&1)"
"""

# The kernel's words for a node without a driver that the device cgroup lets through, and
# for one that it refuses.
LET_THROUGH = "No such device or address"
REFUSED = "Operation not permitted"


@dataclass(frozen=True, slots=True)
class Podman:
    """podman and the spec that it reads, below ``folder``."""

    folder: Path
    fake: FakeHost

    @property
    def specs(self) -> Path:
        return self.folder / "cdi"

    def write_spec(self) -> None:
        """Look at the bus and let the plugin write what it found."""
        self.specs.mkdir(exist_ok=True)
        run(
            [
                *(sys.executable, "-B", "-c", WRITE_SPEC),
                *(self.fake.root, self.specs, f"/dev/{CONTROL}"),
            ],
            env={"PYTHONPATH": str(ROOT / "src")},
        )

    def run(self, *names: str) -> subprocess.CompletedProcess[str]:
        """Run a container with these devices, and return what it said of itself."""
        chips = self.fake.chips
        return run(
            [
                *("unshare", "--mount", "sh", "-c", IN_NAMESPACE, "sh"),
                *(self.specs, self.fake.dev),
                *("podman", "--root", self.folder / "store", "--storage-driver", "vfs"),
                # Below the namespace's own /run: podman wants a short path.
                *("--runroot", "/run/storage", "--tmpdir", "/run/libpod"),
                *("--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "runc"),
                *("run", "--rm", "--network", "none", "--cgroup-parent", f"/{CGROUP}"),
                # More than this a container may not be allowed to allow its own.
                *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
                *("--cap-add", "MKNOD"),
                *(word for name in names for word in ("--device", f"{KIND}={name}")),
                *("--rootfs", self.folder / "rootfs", "/bin/busybox", "sh", "-c", LOOK, "sh"),
                *(str(chips[0].major), *(str(chip.minor) for chip in chips)),
            ],
            check=False,
            timeout=120,
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a container saw: answers by node and by minor of its own copies, and SOLA."""

    nodes: dict[str, str]
    copies: dict[int, str]
    sola: str


def seen(result: subprocess.CompletedProcess[str]) -> Seen:
    assert result.returncode == 0, result.stderr
    lines = [line.split(" ", 2) for line in result.stdout.splitlines()]
    return Seen(
        {name: answer for what, name, answer in lines if what == "node"},
        {int(name): answer for what, name, answer in lines if what == "copy"},
        "".join(f"{name} {answer}" for what, name, answer in lines if what == "sola"),
    )


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    if shutil.which("podman") is None:
        pytest.fail("there is no podman: tests/e2e/run installs it")
    major = free_major(Path("/proc/devices").read_text())
    root = tmp_path / "host"
    fake = FakeHost(root, two_s30_cards(major), dev=root / "dev")
    rootfs = tmp_path / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, rootfs / "bin" / "busybox")
    for applet in ("cat", "ls", "mknod", "touch"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    fake.make()
    os.mknod(fake.dev / CONTROL, 0o20600, os.makedev(major, 200))
    device = root / "sys/devices/virtual/spu-e2e" / CONTROL
    device.mkdir(parents=True)
    (device / "dev").write_text(f"{major}:200\n")
    (device / "uevent").write_text(f"MAJOR={major}\nMINOR=200\nDEVNAME={CONTROL}\n")
    (root / f"sys/dev/char/{major}:200").symlink_to(device)
    running = Podman(tmp_path, fake)
    running.write_spec()
    try:
        yield running
    finally:
        for folder in Path("/sys/fs/cgroup").glob(f"**/{CGROUP}"):
            for below, _, _ in os.walk(folder, topdown=False):
                Path(below).rmdir()


def paths(*chips: Chip) -> set[str]:
    return {f"/dev/{CONTROL}", *(f"/dev/{chip.node}" for chip in chips)}


def assert_has_exactly(found: Seen, podman: Podman, own: list[Chip]) -> None:
    """The nodes of its chips and no others, in its /dev and in its device cgroup."""
    assert set(found.nodes) == paths(*own)
    assert all(LET_THROUGH in answer for answer in found.nodes.values()), found.nodes
    for chip in podman.fake.chips:
        expected = LET_THROUGH if chip in own else REFUSED
        assert expected in found.copies[chip.minor], found.copies


def test_a_container_has_the_devices_that_it_names(podman: Podman) -> None:
    first, second, *_, last = chips = podman.fake.chips
    for names, own in (
        ([first.bus_id], [first]),
        ([second.bus_id, last.bus_id], [second, last]),
        (["card-0000:34:00.0"], chips[:3]),
        (["card-0000:34:00.0", first.bus_id], chips[:3]),
        (["all"], chips),
    ):
        assert_has_exactly(seen(podman.run(*names)), podman, own)


def test_mounts_are_there_and_cannot_be_written(podman: Podman) -> None:
    found = seen(podman.run(podman.fake.chips[0].bus_id))
    assert found.sola.startswith("lib ")
    assert "Read-only file system" in found.sola


def test_what_left_the_bus_is_refused_by_name_until_it_is_back(podman: Podman) -> None:
    chips = podman.fake.chips
    podman.fake.remove(chips[:3])
    podman.write_spec()
    for name in (chips[0].bus_id, "card-0000:34:00.0"):
        result = podman.run(name)
        assert result.returncode != 0
        assert f"unresolvable CDI devices {KIND}={name}" in result.stderr
    assert set(seen(podman.run("all")).nodes) == paths(*chips[3:])
    # Under other minors: the spec has none, the engine reads those of the moment.
    before = (podman.specs / "moffett.ai-spu.json").read_text()
    podman.fake.chips[:3] = podman.fake.rebooted(0)
    podman.fake.add(podman.fake.chips[:3])
    podman.write_spec()
    chip = podman.fake.chips[0]
    assert_has_exactly(seen(podman.run(chip.bus_id)), podman, [chip])
    names = [device["name"] for device in json.loads(before)["devices"]]
    assert chip.bus_id not in names
