"""Where the cluster keeps things, and the addresses and names it uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# How often the kubelet posts the node's status, and so how soon a change in the number of
# devices reaches the API server. A kubelet's default is 10 s: all that is waited for here
# happens in production too, up to ten times later.
STATUS_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The one place that knows the cluster's paths and names.

    The kubelet's folder is not a choice: the manual's DaemonSet mounts it by this name.
    """

    name: str = "moffett-e2e"
    node: str = "e2e-node"
    state: Path = Path("/var/lib/moffett-e2e")
    kubelet: Path = Path("/var/lib/kubelet")
    # The API server listens on the ClusterIP of the `kubernetes` service itself, so pods
    # reach it without a kube-proxy. All of it exists only in the tier's network namespace.
    service_cidr: str = "10.250.0.0/24"
    api_address: str = "10.250.0.1"
    pod_cidr: str = "10.251.0.0/24"
    etcd_client: str = "http://127.0.0.1:23790"
    etcd_peer: str = "http://127.0.0.1:23800"

    @property
    def claim(self) -> Path:
        """The record of what was here before, made first and deleted last."""
        return self.state / "claim.json"

    @property
    def logs(self) -> Path:
        """A log file for each service."""
        return self.state / "log"

    @property
    def credentials(self) -> Path:
        """Keys, certificates and tokens."""
        return self.state / "credentials"

    @property
    def images(self) -> Path:
        """The archives of the images that the tests bring along."""
        return self.state / "images"

    @property
    def containerd(self) -> Path:
        """All that containerd writes."""
        return self.state / "containerd"

    @property
    def containerd_socket(self) -> Path:
        """Containerd's socket."""
        return self.containerd / "containerd.sock"

    @property
    def admin_kubeconfig(self) -> Path:
        """The client configuration of the tests, the scheduler and the controller manager."""
        return self.credentials / "admin.kubeconfig"

    @property
    def kubelet_kubeconfig(self) -> Path:
        """The kubelet's client configuration."""
        return self.credentials / "kubelet.kubeconfig"

    @property
    def cdi(self) -> Path:
        """Where containerd looks for CDI specs, if it knows CDI at all."""
        return self.state / "cdi"

    @property
    def kubelet_socket(self) -> Path:
        """Where the kubelet takes registrations."""
        return self.kubelet / "device-plugins" / "kubelet.sock"

    @property
    def network_namespace(self) -> Path:
        """The file that stands for the network namespace."""
        return Path("/run/netns") / self.name

    @property
    def api_url(self) -> str:
        """The API server's address."""
        return f"https://{self.api_address}:443"
