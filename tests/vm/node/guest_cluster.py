"""The end-to-end tier's Kubernetes, in the guest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import kubernetes
from cluster.cluster import Cluster
from cluster.layout import Layout
from cluster.shell import run, wait_for

DISK = Path("/disk")
#: Nothing takes that long under emulation when all is well.
SECONDS = 300.0


class GuestCluster(Cluster):
    """The same cluster, with the patience that emulated processors need."""

    def _wait(self, what: str, condition: Any) -> None:
        wait_for(what, condition, seconds=SECONDS, every=0.5, describe=self.describe_services)

    def kubectl(
        self, *arguments: str | Path, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl."""
        return run(self.kubectl_command(*arguments), stdin=stdin, check=check, timeout=SECONDS)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster with all its state on the guest's disk: containerd's snapshots do not stand
    on the guest's root. It goes with the guest."""
    run(["modprobe", "virtio_blk"])
    DISK.mkdir()
    run(["mount", "-t", "ext4", "/dev/vda", DISK])
    cluster = GuestCluster(kubernetes.ensure_programs("current"), Layout(state=DISK / "cluster"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
