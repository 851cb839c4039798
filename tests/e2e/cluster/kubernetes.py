"""The Kubernetes releases that the tier runs on."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from . import from_debian, from_modules, packages
from .programs import Programs
from .shell import output

__all__ = [
    "BETWEEN",
    "RELEASES",
    "SETS",
    "WHERE_THEY_DIFFER",
    "Programs",
    "ensure_programs",
    "versions",
]

_BUILDERS: dict[str, Callable[[], Programs]] = {
    "1.20": from_debian.ensure,
    **{name: partial(from_modules.ensure, name) for name in from_modules.RELEASES},
}
#: The oldest that the plugin claims, a current one and two between, in the order they are
#: tested.
RELEASES = tuple(_BUILDERS)
#: These two run only the tests where kubelets differ, unless others are named.
BETWEEN = ("1.30", "1.36")
SETS = {"ends": tuple(name for name in RELEASES if name not in BETWEEN), "all": RELEASES}
WHERE_THEY_DIFFER = (
    "test_cdi.py",
    "test_chart.py",
    "test_host_plugin.py",
    "test_manual.py",
    "test_no_gap.py",
    "test_restarts.py",
    "test_two_plugins.py",
    "test_what_the_kubelet_tells.py",
)

_COMPONENTS = ("kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubelet")
_PACKAGE_OF = {"etcd": "etcd-server", "containerd": "containerd"}


def ensure_programs(release: str) -> Programs:
    """Return the programs of one of `RELEASES`, building those the cache does not have."""
    return _BUILDERS[release]()


def versions(programs: Programs) -> list[str]:
    """Return a line for each real part of the cluster with its version."""
    lines = []
    for name, package in _PACKAGE_OF.items():
        if programs.brings(name):
            # Either says its own name first.
            lines.append(output([programs.path(name), "--version"]).splitlines()[0])
        else:
            lines.append(f"{name} {packages.installed_version(package)} (Debian)")
    for package in ("runc", "containernetworking-plugins"):
        lines.append(f"{package} {packages.installed_version(package)} (Debian)")
    for name in _COMPONENTS:
        lines.append(f"{name} {output([programs.path(name), '--version'])}")
    client = json.loads(output([programs.path("kubectl"), "version", "--client", "--output=json"]))
    lines.append(f"kubectl {client['clientVersion']['gitVersion']}")
    return lines
