"""The chart, installed by the real helm."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from .cluster import Cluster
from .plugin import NAMESPACE, Plugin, wait_for_nothing_offered, wait_for_plugin_processes
from .services import inside
from .shell import output, run, wait_for

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy" / "helm" / "moffett-device-plugin"
RELEASE = "moffett-device-plugin"
SELECTOR = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/name={RELEASE}"
Values = dict[str, Any]


@cache
def program() -> Path:
    """Return helm, building it from its Go module if the cache does not have it."""
    return Path(output([sys.executable, ROOT / "tests" / "deploy" / "programs.py", "helm"]))


def helm(cluster: Cluster, *words: str | Path, values: Values | None = None) -> str:
    """Run helm on the cluster and return what it printed."""
    state = cluster.layout.state / "helm"
    client = [
        program(),
        f"--kubeconfig={cluster.layout.admin_kubeconfig}",
        f"--namespace={NAMESPACE}",
    ]
    # All that it would keep in the home folder.
    homes = {f"HELM_{name}_HOME": str(state / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    given = ["-f", "-"] if values is not None else []
    command = [str(word) for word in [*client, *words, *given]]
    return run(inside(cluster.layout, command), env=homes, stdin=json.dumps(values or {})).stdout


def upgrade(cluster: Cluster, values: Values, file: Path | None = None) -> None:
    """Install the release, or change it, and wait until its pods are ready. ``file`` has values
    under the others."""
    under = ("--values", file) if file else ()
    helm(cluster, "upgrade", RELEASE, CHART, "--install", "--wait", *under, values=values)
    _rolled_out(cluster)


def rollback(cluster: Cluster, revision: int) -> None:
    """Go back to a revision, and wait until its pods are ready."""
    helm(cluster, "rollback", RELEASE, str(revision), "--wait")
    _rolled_out(cluster)


def _rolled_out(cluster: Cluster) -> None:
    """Wait for the last pod, as helm does not where one may be unavailable: before 1.22.

    A kubelet of then can take a minute and more to end a pod that is deleted while it starts.
    """

    def done() -> bool:
        daemonset = cluster.get("daemonset", RELEASE, NAMESPACE)
        status = daemonset["status"]
        seen = status.get("observedGeneration") == daemonset["metadata"]["generation"]
        numbers = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
        return seen and all(status.get(number) == 1 for number in numbers)

    wait_for("the DaemonSet to be rolled out", done, seconds=150)
    wait_for_plugin_processes(cluster, 1)


@contextmanager
def installed(cluster: Cluster, values: Values, file: Path | None = None) -> Iterator[Plugin]:
    """Have the release for a block, and nothing of it afterwards."""
    try:
        upgrade(cluster, values, file)
        yield Plugin(cluster, SELECTOR)
    finally:
        uninstall(cluster)


def uninstall(cluster: Cluster) -> None:
    """Remove the release, and wait until the node shows that it is gone."""
    helm(cluster, "uninstall", RELEASE, "--ignore-not-found", "--wait")
    wait_for_plugin_processes(cluster, 0)
    wait_for_nothing_offered(cluster)
