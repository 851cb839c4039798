"""The cluster itself: bringing it up, talking to it, taking it down."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import configuration, host, images
from .layout import Layout
from .programs import Programs
from .services import Services, inside
from .shell import CommandError, run, wait_for

Object = dict[str, Any]


class Cluster:
    """A running single-node cluster."""

    def __init__(self, programs: Programs, layout: Layout | None = None) -> None:
        self.layout = layout or Layout()
        self.programs = programs
        self._commands = configuration.commands(self.layout, programs)
        self.services = Services(self.layout, self._commands)

    # --- life -------------------------------------------------------------------------

    def up(self) -> None:
        """Bring everything up and wait until the node is ready for pods."""
        layout = self.layout
        host.clean(layout)
        host.claim(layout)
        host.make_network(layout)
        host.make_cgroups(layout)
        host.share_kubelet_folder(layout)
        self._write_files()
        for name in ("etcd", "containerd", "kube-apiserver"):
            self.services.start(name)
        archives = images.make_images(layout.images)
        self._wait("containerd", lambda: self.ctr("version", check=False).returncode == 0)
        for image in archives:
            self.import_image(image.archive)
        self._wait("the API server", lambda: self.answers("get", "--raw", "/readyz"))
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet"):
            self.services.start(name)
        # Pods are refused until their namespace has its service account.
        for namespace in ("default", "kube-system"):
            self._wait(
                f"the service account of {namespace}",
                lambda: self.answers("-n", namespace, "get", "serviceaccount", "default"),  # noqa: B023
            )
        self._wait("the node to be ready", self._node_is_ready)

    def down(self) -> None:
        """Stop everything and put the machine back as it was."""
        self.services.stop_all()
        host.clean(self.layout)

    def _wait(self, what: str, condition: Any) -> None:
        wait_for(what, condition, seconds=60, describe=self.describe_services)

    def describe_services(self) -> str:
        """Return which services died and the ends of the logs."""
        parts = [f"services that ended by themselves: {self.services.dead() or 'none'}"]
        for name in self.services.commands:
            log = self.services.log(name)
            if log.exists():
                lines = log.read_text(errors="replace").splitlines()[-8:]
                parts.append("\n".join([f"--- {name}", *lines]))
        return "\n".join(parts)

    def _node_is_ready(self) -> bool:
        if not self.answers("get", "node", self.layout.node):
            return False
        node = self.node()
        conditions = {item["type"]: item["status"] for item in node["status"]["conditions"]}
        # A new node is tainted until the controller manager has seen it ready.
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _write_files(self) -> None:
        layout = self.layout
        for folder in (layout.logs, layout.images, layout.containerd, layout.state / "cni"):
            folder.mkdir(parents=True)
        layout.credentials.mkdir(mode=0o700)
        key = layout.credentials / "service-accounts.key"
        run(["openssl", "genrsa", "-out", key, "2048"])
        admin, kubelet = secrets.token_hex(16), secrets.token_hex(16)
        files = {
            layout.credentials / "tokens.csv": configuration.tokens(layout, admin, kubelet),
            layout.admin_kubeconfig: configuration.kubeconfig(layout, "admin", admin),
            layout.kubelet_kubeconfig: configuration.kubeconfig(layout, "kubelet", kubelet),
            layout.state / "kubelet.json": configuration.kubelet(layout, self.programs),
            layout.state / "containerd.toml": configuration.containerd(
                layout, host.snapshotter(layout)
            ),
            layout.state / "cni" / "10-e2e.conflist": configuration.pod_network(layout),
        }
        for path, text in files.items():
            path.write_text(text)

    @property
    def minor(self) -> tuple[int, int]:
        """The Kubernetes version as (major, minor), for what differs between kubelets."""
        return self.programs.minor

    # --- commands ---------------------------------------------------------------------

    def kubectl_command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of a kubectl that speaks to this cluster."""
        client = [
            str(self.programs.path("kubectl")),
            f"--kubeconfig={self.layout.admin_kubeconfig}",
            # Would otherwise go to the home folder and outlive the cluster.
            f"--cache-dir={self.layout.state}/kubectl-cache",
        ]
        return inside(self.layout, [*client, *arguments])

    def kubectl(
        self, *arguments: str | Path, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl."""
        return run(self.kubectl_command(*arguments), stdin=stdin, check=check, timeout=60)

    def answers(self, *arguments: str) -> bool:
        """Tell whether a kubectl command succeeds."""
        return self.kubectl(*arguments, check=False).returncode == 0

    def ctr(
        self, *arguments: str | Path, namespace: str = "k8s.io", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run containerd's own client, in the namespace that the kubelet sees or another."""
        address = f"--address={self.layout.containerd_socket}"
        command = [self.programs.path("ctr"), address, f"--namespace={namespace}", *arguments]
        return run(command, check=check, timeout=60)

    def import_image(self, archive: Path) -> str:
        """Load an image archive, as `docker load -i` would, and say what was loaded."""
        return self.ctr("images", "import", archive).stdout

    # --- objects ----------------------------------------------------------------------

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """Return an object."""
        text = self.kubectl("-n", namespace, "get", kind, name, "-o", "json").stdout
        result: Object = json.loads(text)
        return result

    def find(self, kind: str, namespace: str = "default", selector: str = "") -> list[Object]:
        """Return objects of a kind."""
        text = self.kubectl("-n", namespace, "get", kind, "-l", selector, "-o", "json").stdout
        items: list[Object] = json.loads(text)["items"]
        return items

    def create(self, manifest: Object | Path) -> None:
        """Create objects from a manifest, with a file just as it is."""
        if isinstance(manifest, Path):
            self.kubectl("create", "-f", manifest)
        else:
            self.kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    def delete(
        self, kind: str, name: str, namespace: str = "default", *, wait: bool = True
    ) -> None:
        """Delete an object as a user would; nothing happens if it is not there."""
        command = ("-n", namespace, "delete", kind, name, "--ignore-not-found")
        self.kubectl(*command, f"--wait={str(wait).lower()}", "--timeout=45s")

    def discard(self, kind: str, *names: str, namespace: str = "default") -> None:
        """Delete objects without the 5 to 10 s that a kubelet takes to call a pod gone."""
        command = ("-n", namespace, "delete", kind, *names, "--ignore-not-found")
        self.kubectl(*command, "--force", "--grace-period=0", "--timeout=45s")

    def node(self) -> Object:
        """Return the node."""
        return self.get("node", self.layout.node)

    def exec(
        self, pod: str, *command: str, namespace: str = "default", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a pod."""
        return self.kubectl("-n", namespace, "exec", pod, "--", *command, check=check)

    def logs(self, pod: str, namespace: str = "default") -> str:
        """Return a pod's log, or why there is none."""
        result = self.kubectl("-n", namespace, "logs", pod, check=False)
        return result.stdout or result.stderr

    def phase(self, pod: str, namespace: str = "default") -> str:
        """Return a pod's phase, or "Gone"."""
        try:
            status: Object = self.get("pod", pod, namespace)["status"]
        except CommandError:
            return "Gone"
        return str(status.get("phase"))

    # --- the kubelet ------------------------------------------------------------------

    def restart_kubelet(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the kubelet by a signal, start it anew and wait until its plugin socket is back.

        The old socket lies there until the new kubelet gets to it, so a new one is told by
        its creation time; its inode number is often the same.
        """
        before = self.layout.kubelet_socket.stat().st_ctime_ns
        self.services.stop("kubelet", number)
        self._start_kubelet(before)

    def _start_kubelet(self, before: int) -> None:
        path = self.layout.kubelet_socket
        self.services.start("kubelet")

        def back() -> bool:
            # As systemd does: containerd can listen before it serves the CRI, and a kubelet
            # that finds it so exits.
            if not self.services.alive("kubelet"):
                self.services.start("kubelet")
            return path.exists() and path.stat().st_ctime_ns != before

        wait_for(
            "the restarted kubelet's device plugin socket",
            back,
            seconds=60,
            every=0.02,
        )

    def reboot(self, before_the_kubelet: Callable[[], None] = lambda: None) -> None:
        """End all that runs on the node and start it anew, as when its power fails and
        comes back: without what was in memory, and with all that was on disk.

        The control plane goes on, as on another machine. ``before_the_kubelet`` is what the
        node starts as soon as there is a containerd.
        """
        before = self.layout.kubelet_socket.stat().st_ctime_ns
        for name in ("kubelet", "containerd"):
            self.services.stop(name, signal.SIGKILL)
        host.end_containers(self.layout, keep=self.services.processes())
        self.services.start("containerd")
        self._wait("containerd", lambda: self.ctr("version", check=False).returncode == 0)
        before_the_kubelet()
        self._start_kubelet(before)

    @contextmanager
    def changed_kubelet(self, *prefix: str, **settings: Any) -> Iterator[None]:
        """Restart the kubelet with other settings for a block, and as it was after it.

        ``settings`` are keys of its configuration file; ``prefix`` is a command that runs
        the kubelet's, such as `numa.two_nodes` returns.
        """
        path, command = self.layout.state / "kubelet.json", self._commands["kubelet"]
        usual = path.read_text()
        path.write_text(configuration.kubelet(self.layout, self.programs, settings))
        self._commands["kubelet"] = [*prefix, *command]
        try:
            self.restart_kubelet()
            yield
        finally:
            path.write_text(usual)
            self._commands["kubelet"] = command
            # It may have refused the settings and ended by itself.
            self.restart_kubelet()


@contextmanager
def running_cluster(programs: Programs) -> Iterator[Cluster]:
    """Bring a cluster up for the length of a block, and always take it down again."""
    host.check(Layout())
    with host.lock():
        cluster = Cluster(programs)
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.down()
