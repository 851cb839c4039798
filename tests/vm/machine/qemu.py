"""Booting a guest: Debian's kernel under QEMU's software emulation."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.programs import cache_folder
from cluster.shell import run

from .kernel import TIER, Built, Kernel

MEMORY_MIB = 4096
PROCESSORS = 2


def run_in_guest(
    kernel: Kernel,
    built: Built,
    command: Sequence[str | Path],
    *,
    seconds: float,
    disk_gib: int = 0,
) -> int | None:
    """Boot a guest, run a command in it on the host's own files (changes stay in the guest),
    and return its exit status; its output is ours. None for a guest that ended without one,
    or that was still running after so many seconds. With `disk_gib` it has an empty ext4 disk
    of that size, /dev/vda."""
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".vm-run-") as work:
        folder = Path(work)
        words = [str(TIER / "guest" / "start"), str(kernel.modules), *map(str, command)]
        (folder / "start").write_text(f"exec /bin/sh {shlex.join(words)}\n")
        status = folder / "status"
        qemu = _command(kernel, built, folder / "start", status)
        if disk_gib:
            disk = folder / "disk"
            with disk.open("wb") as file:
                file.truncate(disk_gib << 30)
            run(["mkfs.ext4", "-q", disk])
            qemu += ["-drive", f"file={disk},if=virtio,format=raw,cache=unsafe"]
        try:
            subprocess.run(
                qemu,
                stdin=subprocess.DEVNULL,
                timeout=seconds,
                check=True,
            )
        except subprocess.TimeoutExpired:
            print(f"the guest did not end within {seconds:g} s")
        text = status.read_text().strip() if status.exists() else ""
    return int(text) if text.isdecimal() else None


def _command(kernel: Kernel, built: Built, start: Path, status: Path) -> list[str]:
    half = f"size={MEMORY_MIB // 2}M"
    return [
        "qemu-system-x86_64",
        # Never KVM: where it exists it may still not work.
        *("-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max"),
        *("-smp", str(PROCESSORS), "-m", str(MEMORY_MIB)),
        # Two NUMA nodes, a processor on each.
        *("-object", f"memory-backend-ram,id=m0,{half}"),
        *("-object", f"memory-backend-ram,id=m1,{half}"),
        *("-numa", "node,nodeid=0,memdev=m0,cpus=0"),
        *("-numa", "node,nodeid=1,memdev=m1,cpus=1"),
        *("-display", "none", "-nodefaults", "-no-reboot"),
        *("-serial", "stdio", "-serial", f"file:{status}"),
        "-virtfs",
        "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        *("-kernel", str(kernel.image), "-initrd", str(built.initrd)),
        *("-append", f"console=ttyS0 panic=-1 quiet start={start}"),
    ]
