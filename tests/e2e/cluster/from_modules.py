"""Kubernetes, etcd and containerd, built from their Go modules.

`programs/kubernetes*` and `programs/containerd*` beside this folder are Go modules without a
line of Go: their go.mod names the upstream programs as tools, at versions that go.sum pins.
What is built is upstream's own `main`. Only the finished programs are kept, in a cache keyed
by those files: Go's caches (6 GiB) are deleted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from .programs import Programs, building, cache_folder, place, say
from .shell import CommandError, output, run

MODULES = Path(__file__).resolve().parents[1] / "programs"
KUBERNETES = "k8s.io/kubernetes"
ETCD = "go.etcd.io/etcd/server/v3"

_CONTROL_PLANE = ("kube-apiserver", "kube-scheduler", "kube-controller-manager")
_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")


@dataclass(frozen=True, slots=True)
class Module:
    """A folder with a go.mod, and the programs its tools are: name -> package."""

    folder: Path
    programs: dict[str, str]
    stamps: dict[str, str]

    def files(self) -> tuple[Path, Path]:
        """Return what pins every byte that is built."""
        return self.folder / "go.mod", self.folder / "go.sum"


def required_version(go_mod: str, module: str) -> str:
    """Return the version of a module that a go.mod requires, without its "v".

    >>> required_version("require (\\n\\tk8s.io/kubernetes v1.37.2\\n)", "k8s.io/kubernetes")
    '1.37.2'
    """
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} v(\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod does not require {module}")
    return found[1]


def _kubernetes(folder: str, *further: str, **others: str) -> Module:
    """Return a kubelet and its control plane, with further programs of the same module, and
    those of others: name -> package."""
    version = _version(folder, KUBERNETES)
    major, minor, _ = version.split(".", 2)
    stamps = {
        f"{holder}.{key}": value
        for holder in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for key, value in {
            "gitVersion": f"v{version}",
            "gitMajor": major,
            "gitMinor": minor,
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
        }.items()
    }
    names = ("kubelet", *_CONTROL_PLANE, *further)
    packages = {**{name: f"{KUBERNETES}/cmd/{name}" for name in names}, **others}
    return Module(MODULES / folder, packages, stamps)


def _containerd(folder: str, module: str) -> Module:
    return Module(
        MODULES / folder,
        {name: f"{module}/cmd/{name}" for name in _CONTAINERD},
        {f"{module}/version.Version": f"v{_version(folder, module)}"},
    )


def _version(folder: str, module: str) -> str:
    return required_version((MODULES / folder / "go.mod").read_text(), module)


#: What each release builds, the kubelet's module first. Those between take etcd and kubectl,
#: and the newer one of them containerd, from the current one.
RELEASES = {
    "1.30": (
        _kubernetes("kubernetes-1.30"),
        _containerd("containerd-1.7", "github.com/containerd/containerd"),
    ),
    "1.36": (_kubernetes("kubernetes-1.36"),),
    "current": (
        _kubernetes("kubernetes", "kubectl", etcd=ETCD),
        _containerd("containerd", "github.com/containerd/containerd/v2"),
    ),
}


def ensure(release: str, cache: Path | None = None) -> Programs:
    """Return the programs of one of `RELEASES`, building those the cache does not have."""
    modules = RELEASES[release]
    shared = None if release == "current" else ensure("current", cache).folder
    pins = b"".join(path.read_bytes() for module in modules for path in module.files())
    version = _version(modules[0].folder.name, KUBERNETES)
    key = f"kubernetes-{version}-{hashlib.sha256(pins).hexdigest()[:12]}"
    root = (cache or cache_folder()) / key
    programs = Programs(version, root / "bin", shared)
    with building(root):
        programs.folder.mkdir(exist_ok=True)
        for module in modules:
            absent = [name for name in module.programs if not (programs.folder / name).exists()]
            if absent:
                _build(module, absent, programs.folder, root / "build")
        if (root / "build").exists():
            shutil.rmtree(root / "build")
    return programs


def _build(module: Module, names: list[str], target: Path, work: Path) -> None:
    """Build programs of one module, all at once: they share most of what is compiled."""
    _check_go(module)
    work.mkdir(parents=True, exist_ok=True)
    environment = {
        "GOCACHE": str(work / "go-cache"),
        "GOMODCACHE": str(work / "modules"),
        # Files that can be deleted; no version control around; what go.sum says, or nothing.
        "GOFLAGS": "-modcacherw -buildvcs=false -mod=readonly",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in module.stamps.items())])
    say(f"building {', '.join(names)}: minutes")
    start = time.monotonic()
    made = work / "bin"
    made.mkdir(exist_ok=True)
    packages = [module.programs[name] for name in names]
    run(
        ["go", "build", "-trimpath", "-ldflags", flags, "-o", f"{made}/", *packages],
        cwd=module.folder,
        env={**environment, "PWD": str(module.folder)},
    )
    for name in names:
        place(made / _built_name(module.programs[name]), target / name)
    say(f"built {', '.join(names)} in {time.monotonic() - start:.0f} s")


def _built_name(package: str) -> str:
    """Return how `go build` names a package's program.

    >>> _built_name("k8s.io/kubernetes/cmd/kubelet"), _built_name("go.etcd.io/etcd/server/v3")
    ('kubelet', 'server')
    """
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]


def _check_go(module: Module) -> None:
    """Fail in one line, not in the compiler, where Go is missing or too old."""
    wanted = re.search(r"^go (\S+)$", module.files()[0].read_text(), re.MULTILINE)
    assert wanted is not None
    remedy = f"Go {wanted[1]} or newer must be on PATH to build {module.folder.name}"
    try:
        found = output(["go", "env", "GOVERSION"], cwd=module.folder, env={"GOTOOLCHAIN": "local"})
    except (FileNotFoundError, CommandError) as error:
        raise RuntimeError(f"{remedy}: {os.fspath(str(error))}") from None
    have = tuple(map(int, re.findall(r"\d+", found)[:3]))
    if have < tuple(map(int, wanted[1].split("."))):
        raise RuntimeError(f"{remedy}, not {found}")
