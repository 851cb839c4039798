"""What the tests ask of the plugin and of pods that use its devices."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import host
from .cluster import Cluster, Object
from .images import WORKLOAD_IMAGE
from .shell import wait_for

RESOURCE = "moffett.ai/spu"
NAMESPACE = "kube-system"
DEVICE_PLUGINS = "/var/lib/kubelet/device-plugins"
# Generous for a busy two-core machine; nothing waits this long when all is well.
SECONDS = 30.0


def workload(
    name: str, spus: int = 0, *, privileged: bool = False, restarts: bool = False
) -> Object:
    """Return a pod that stays, with that many devices; one that ``restarts`` does so as all
    do that belong to something."""
    limits = {RESOURCE: spus} if spus else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "restartPolicy": "Always" if restarts else "Never",
            "containers": [
                {
                    "name": "workload",
                    "image": WORKLOAD_IMAGE,
                    "resources": {"limits": limits},
                    "securityContext": {"privileged": privileged},
                }
            ],
        },
    }


def plugin_pod(name: str, folders: Mapping[str, str] | None = None, **environment: str) -> Object:
    """Return a pod of the plugin that no DaemonSet makes, with a label `copy` of its name.

    ``folders`` are the host's, beside the kubelet's own: path there -> path in the container.
    """
    places = {DEVICE_PLUGINS: DEVICE_PLUGINS, **(folders or {})}
    names = {path: f"folder-{number}" for number, path in enumerate(places)}
    container = {
        "name": "plugin",
        "image": "moffett/k8s-device-plugin:v0.1.0",
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"name": names[path], "mountPath": place} for path, place in places.items()
        ],
    }
    volumes = [
        {"name": names[path], "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
        for path in places
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"copy": name}},
        "spec": {"containers": [container], "volumes": volumes},
    }


@dataclass(frozen=True, slots=True)
class Counts:
    """The node's capacity and allocatable number of devices; None if it names none."""

    capacity: int | None
    allocatable: int | None


@dataclass(frozen=True, slots=True)
class Assigned:
    """The devices a container was given, by its environment and its device nodes."""

    ids: tuple[str, ...]
    indexes: tuple[int, ...]
    nodes: tuple[str, ...]


def counts(cluster: Cluster) -> Counts:
    """Return what the node offers."""
    status = cluster.node()["status"]

    def number(field_name: str) -> int | None:
        value = status[field_name].get(RESOURCE)
        return None if value is None else int(value)

    return Counts(number("capacity"), number("allocatable"))


def wait_for_count(cluster: Cluster, allocatable: int, capacity: int | None = None) -> None:
    """Wait until the node offers so many devices."""
    wanted = Counts(allocatable if capacity is None else capacity, allocatable)
    wait_for(
        f"{wanted}",
        lambda: counts(cluster) == wanted,
        seconds=SECONDS,
        describe=lambda: f"last: {counts(cluster)}",
    )


def wait_for_nothing_offered(cluster: Cluster) -> None:
    """Wait until the kubelet has noticed that no plugin is left.

    Whoever waits for the next plugin's devices would be content with these otherwise, and a
    kubelet that goes on offering them fails every pod that it is sent.
    """
    wait_for(
        "the node to offer nothing",
        lambda: not counts(cluster).allocatable,
        seconds=SECONDS,
        describe=lambda: f"last: {counts(cluster)}",
    )


def wait_for_status_posts(cluster: Cluster, posts: int = 2) -> None:
    """Wait until the kubelet has posted the node's status that many times more.

    This, not a pause, is how a test knows that a change would have been seen by now.
    """
    for _ in range(posts):
        before = _heartbeat(cluster)

        def posted(before: str = before) -> bool:
            return _heartbeat(cluster) != before

        wait_for("the node's next status", posted, seconds=SECONDS)


def _heartbeat(cluster: Cluster) -> str:
    conditions = cluster.node()["status"]["conditions"]
    return next(str(c["lastHeartbeatTime"]) for c in conditions if c["type"] == "Ready")


def wait_for_phase(cluster: Cluster, pod: str, phase: str = "Running") -> None:
    """Wait until a pod is in a phase; a pod that failed for good ends the wait at once."""

    def reached() -> bool:
        current = cluster.phase(pod)
        if current == "Failed" and phase != "Failed":
            status = cluster.get("pod", pod)["status"]
            raise AssertionError(f"{pod} failed: {status.get('reason')}: {status.get('message')}")
        return current == phase

    wait_for(f"{pod} to be {phase}", reached, seconds=SECONDS)


def assigned(cluster: Cluster, pod: str) -> Assigned:
    """Return what a running pod was given."""
    lines = cluster.exec(pod, "env").stdout.splitlines()
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    listing = cluster.exec(pod, "find", "/dev", "-name", "spu-*").stdout.split()
    return Assigned(
        ids=tuple(environment["MOFFETT_SPU_IDS"].split(",")),
        indexes=tuple(int(word) for word in environment["MOFFETT_SPU_INDEXES"].split(",")),
        nodes=tuple(sorted(listing)),
    )


def container_identity(cluster: Cluster, pod: str) -> tuple[str, int]:
    """Return what changes when a pod's container is replaced."""
    status = cluster.get("pod", pod)["status"]["containerStatuses"][0]
    return str(status["containerID"]), int(status["restartCount"])


@dataclass(slots=True)
class Plugin:
    """The plugin's pods, found by a label."""

    cluster: Cluster
    selector: str

    def pods(self) -> list[str]:
        """Return the names of the pods that run and are not on their way out."""
        return [
            str(pod["metadata"]["name"])
            for pod in self.cluster.find("pods", NAMESPACE, self.selector)
            if pod["status"].get("phase") == "Running"
            and "deletionTimestamp" not in pod["metadata"]
            and all(c.get("ready") for c in pod["status"].get("containerStatuses", []))
        ]

    def pod(self) -> str:
        """Return the one running pod's name, waiting for it."""
        return wait_for("a plugin pod that runs", self.pods, seconds=SECONDS)[0]

    def run(self, *arguments: str) -> str:
        """Run the plugin's own program in its pod and return what it printed."""
        return self.cluster.exec(
            self.pod(), "moffett-device-plugin", *arguments, namespace=NAMESPACE
        ).stdout

    def simulate(self, *arguments: str) -> None:
        """Break or mend something on the simulated node."""
        self.run("simulate", *arguments)

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return the plugin's own account of its devices, by id."""
        return {
            str(device["id"]): device for device in json.loads(self.run("devices", "-o", "json"))
        }

    def delete_pod(self) -> None:
        """Start deleting the running pod, as an upgrade or an administrator would."""
        self.cluster.delete("pod", self.pod(), NAMESPACE, wait=False)

    def discard(self, daemonset: str) -> None:
        """Remove the DaemonSet and wait until its processes are gone."""
        # Pods first lose their owner's care, so that none is made anew.
        self.cluster.delete("daemonset", daemonset, NAMESPACE, wait=False)
        wait_for(
            "the DaemonSet to be gone",
            lambda: not self.cluster.answers("-n", NAMESPACE, "get", "daemonset", daemonset),
            seconds=SECONDS,
        )
        names = [
            pod["metadata"]["name"] for pod in self.cluster.find("pods", NAMESPACE, self.selector)
        ]
        if names:
            self.cluster.discard("pod", *names, namespace=NAMESPACE)
        wait_for_plugin_processes(self.cluster, 0)
        wait_for_nothing_offered(self.cluster)


@dataclass(slots=True)
class AllocatableWatch:
    """Every value of the node's allocatable that the API server ever told, from a watch.

    Polling could miss a drop that lasts less than its period; a watch cannot.
    """

    cluster: Cluster
    seen: list[int] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _reader: threading.Thread | None = None

    def __enter__(self) -> AllocatableWatch:
        """Start watching and wait for the first value."""
        path = RESOURCE.replace(".", r"\.")
        template = f"jsonpath={{.status.allocatable.{path}}}{{'\\n'}}"
        words = ("get", "node", self.cluster.layout.node, "--watch", "-o", template)
        self._process = subprocess.Popen(
            self.cluster.kubectl_command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for("the watch's first value", lambda: bool(self.seen), seconds=SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._reader is not None
        self._reader.join()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                # A node without the resource shows no value at all: nothing to offer.
                self.seen.append(int(line.strip() or 0))

    def assert_never_below(self, number: int) -> None:
        """Fail if the API server ever told less than that."""
        assert self._process is not None
        assert self._process.poll() is None, "the watch ended early"
        assert min(self.seen) >= number, f"allocatable went {self.seen}"


def plugin_processes(cluster: Cluster) -> list[int]:
    """Return the ids of the plugin processes that run, in whatever pods."""

    def serves(pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"/usr/bin/moffett-device-plugin" in words and b"serve" in words

    return [pid for pid in host.processes(cluster.layout) if serves(pid)]


def wait_for_plugin_processes(cluster: Cluster, number: int) -> None:
    """Wait until so many plugin processes run."""
    wait_for(
        f"{number} plugin processes",
        lambda: len(plugin_processes(cluster)) == number,
        seconds=SECONDS,
    )


def stays_pending(cluster: Cluster, pod: str) -> str:
    """Return why the scheduler will not place a pod."""

    def reason() -> str:
        for condition in cluster.get("pod", pod)["status"].get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return str(condition["message"])
        return ""

    return wait_for(f"the scheduler's verdict on {pod}", reason, seconds=SECONDS)
