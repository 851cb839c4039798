"""The configuration files of the cluster's parts, as text. Nothing here does anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .layout import STATUS_SECONDS, Layout
from .programs import Programs

PAUSE_IMAGE = "localhost/pause:3.2"


def containerd(layout: Layout, snapshotter: str) -> str:
    """Return containerd's configuration.

    ``restrict_oom_score_adj``: without CAP_SYS_RESOURCE, as in some virtual machines and CI
    runners, nobody may lower an oom_score_adj, and every sandbox would fail on its -998.
    ``netns_mounts_under_state_dir``: the pods' network namespaces are then ours to clean up
    by their place alone. ``nri`` (containerd 2) would make a socket outside of our folders.
    """
    return f"""\
version = 2
root = "{layout.containerd}/root"
state = "{layout.containerd}/state"
[grpc]
  address = "{layout.containerd_socket}"
[ttrpc]
  address = "{layout.containerd_socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.containerd}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ["{layout.cdi}"]
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.state}/cni"
"""


def pod_network(layout: Layout) -> str:
    """Return the CNI configuration: a bridge that leads nowhere."""
    bridge = {
        "type": "bridge",
        "bridge": "e2e-pods",
        "isGateway": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{layout.state}/cni-leases",
            "ranges": [[{"subnet": layout.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "0.4.0", "name": layout.name, "plugins": [bridge]})


def kubelet(layout: Layout, programs: Programs, changes: Mapping[str, Any] | None = None) -> str:
    """Return the kubelet's configuration; ``changes`` are what a test wants otherwise.

    Its port is open to anyone inside the network namespace, which spares a certificate for
    `kubectl exec`. Images come by import only, so one that garbage collection took would be
    lost for good.
    """
    of_its_version: dict[str, Any] = {}
    if programs.minor >= (1, 35):
        # From here on a kubelet wants control groups v2 unless it is told otherwise; which
        # ones a machine has says nothing about device plugins.
        of_its_version["failCgroupV1"] = False
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": layout.api_address,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{layout.name}",
            "makeIPTablesUtilChains": False,
            "failSwapOn": False,
            "nodeStatusUpdateFrequency": f"{STATUS_SECONDS}s",
            "volumePluginDir": f"{layout.state}/volume-plugins",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "500Mi",
                "imagefs.available": "500Mi",
            },
            **of_its_version,
            **(changes or {}),
        }
    )


def kubeconfig(layout: Layout, user: str, token: str) -> str:
    """Return a client configuration."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": layout.name,
            "clusters": [
                {
                    "name": layout.name,
                    "cluster": {
                        "server": layout.api_url,
                        "certificate-authority": f"{layout.credentials}/apiserver.crt",
                    },
                }
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": layout.name, "context": {"cluster": layout.name, "user": user}}],
        }
    )


def tokens(layout: Layout, admin: str, kubelet_token: str) -> str:
    """Return the API server's token file."""
    return (
        f'{admin},admin,admin,"system:masters"\n'
        f'{kubelet_token},system:node:{layout.node},kubelet,"system:nodes"\n'
    )


def commands(layout: Layout, programs: Programs) -> dict[str, list[str]]:
    """Return each service's command, in the order they are started."""
    keys = layout.credentials
    local = ["--bind-address=127.0.0.1", "--leader-elect=false"]
    remote = []
    if programs.minor < (1, 24):
        # Until then there was an insecure port, and Docker was the default.
        local.append("--port=0")
        remote.append("--container-runtime=remote")
    return {
        "etcd": [
            *(
                str(programs.path("etcd")),
                f"--name={layout.name}",
                f"--data-dir={layout.state}/etcd",
            ),
            *("--log-level=warn", "--unsafe-no-fsync"),
            f"--listen-client-urls={layout.etcd_client}",
            f"--advertise-client-urls={layout.etcd_client}",
            f"--listen-peer-urls={layout.etcd_peer}",
            f"--initial-advertise-peer-urls={layout.etcd_peer}",
            f"--initial-cluster={layout.name}={layout.etcd_peer}",
        ],
        "containerd": [
            # Its shim is looked up in PATH, and must be of its own version.
            "env",
            f"PATH={':'.join([*map(str, programs.folders), os.environ['PATH']])}",
            *(str(programs.path("containerd")), f"--config={layout.state}/containerd.toml"),
        ],
        "kube-apiserver": [
            str(programs.path("kube-apiserver")),
            f"--etcd-servers={layout.etcd_client}",
            *(f"--bind-address={layout.api_address}", "--secure-port=443"),
            f"--advertise-address={layout.api_address}",
            f"--cert-dir={keys}",
            f"--service-cluster-ip-range={layout.service_cidr}",
            f"--token-auth-file={keys}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}/service-accounts.key",
            f"--service-account-signing-key-file={keys}/service-accounts.key",
            *("--kubelet-preferred-address-types=InternalIP", "--profiling=false"),
        ],
        "kube-controller-manager": [
            str(programs.path("kube-controller-manager")),
            f"--kubeconfig={layout.admin_kubeconfig}",
            f"--cert-dir={keys}/controller-manager",
            f"--service-account-private-key-file={keys}/service-accounts.key",
            f"--root-ca-file={keys}/apiserver.crt",
            # The node must not be called lost while a test has its kubelet down.
            "--node-monitor-grace-period=60s",
            *local,
        ],
        "kube-scheduler": [
            str(programs.path("kube-scheduler")),
            f"--kubeconfig={layout.admin_kubeconfig}",
            f"--cert-dir={keys}/scheduler",
            *local,
        ],
        "kubelet": [
            str(programs.path("kubelet")),
            f"--config={layout.state}/kubelet.json",
            f"--kubeconfig={layout.kubelet_kubeconfig}",
            *(f"--hostname-override={layout.node}", f"--node-ip={layout.api_address}"),
            *(f"--root-dir={layout.kubelet}", *remote),
            f"--container-runtime-endpoint=unix://{layout.containerd_socket}",
            "--v=2",  # from here on it says when it has a list of devices
        ],
    }
