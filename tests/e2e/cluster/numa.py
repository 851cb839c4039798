"""Two NUMA nodes for a kubelet, on a machine that may have one.

The kubelet reads the machine's nodes from sysfs. A mount namespace of its own shows it
another folder there; nobody else on the machine sees that.
"""

from __future__ import annotations

import os
from pathlib import Path

from .layout import Layout

NODES = Path("/sys/devices/system/node")
CPUS = Path("/sys/devices/system/cpu")
COUNT = 2

_SHOW = f"""
mount --make-rprivate /sys
mount --bind "$0" {NODES}
exec "$@"
"""


def two_nodes(layout: Layout) -> list[str]:
    """Make the folder and return the command prefix that shows it to a program.

    The kubelet's own folder is a shared mount (`host.share_kubelet_folder`), so the volumes
    that it mounts in there reach containerd all the same.
    """
    tree = layout.state / "numa"
    if not tree.exists():
        _make(tree)
    unshare = ["unshare", "--mount", "--propagation=unchanged", "--"]
    return [*unshare, "sh", "-ec", _SHOW, str(tree)]


def _make(tree: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    kibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024 // COUNT
    for node in range(COUNT):
        folder = tree / f"node{node}"
        (folder / "hugepages").mkdir(parents=True)
        own = cpus[node::COUNT]
        for cpu in own:
            (folder / f"cpu{cpu}").symlink_to(CPUS / f"cpu{cpu}")
        distances = " ".join("10" if other == node else "20" for other in range(COUNT))
        texts = {
            "cpulist": ",".join(map(str, own)),
            "distance": distances,
            "meminfo": f"Node {node} MemTotal: {kibibytes:15} kB",
        }
        for name, text in texts.items():
            (folder / name).write_text(text + "\n")
    for name in ("online", "possible", "has_cpu", "has_memory", "has_normal_memory"):
        (tree / name).write_text(f"0-{COUNT - 1}\n")
