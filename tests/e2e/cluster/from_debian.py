"""Kubernetes 1.20, built from Debian's own `kubernetes` source package.

Debian ships `kubectl` (package kubernetes-client) but no kubelet that could be installed
by itself; its source builds with Debian's Go. Only the finished programs are kept, in a
cache keyed by the source version: the build tree (5 GiB with Go's cache) is deleted.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import packages
from .programs import Programs, building, cache_folder, place, say
from .shell import run

# What this tier tests against; another 1.20.z of Debian would be as good.
MINOR_VERSION = "1.20"
BUILT = ("kubelet", "kube-apiserver", "kube-scheduler", "kube-controller-manager")
GO = Path("/usr/lib/go-1.19/bin/go")

_OPENAPI = Path("pkg/generated/openapi/zz_generated.openapi.go")
_OPENAPI_TAG = re.compile(rb"^//\s*\+k8s:openapi-gen=", re.MULTILINE)
_OPENAPI_SKIPPED = ("vendor/k8s.io/code-generator/", "vendor/k8s.io/sample-apiserver/")


def upstream_version(debian_version: str) -> str:
    """Return what a Debian version really contains.

    >>> upstream_version("1.20.5+really1.20.2-1.1+deb12u1")
    '1.20.2'
    """
    upstream = debian_version.rpartition("-")[0] or debian_version
    return upstream.rpartition("+really")[2]


def ensure(cache: Path | None = None) -> Programs:
    """Return the programs, building those the cache does not have."""
    if packages.candidate_version("kubernetes-client") is None:
        packages.update_index()
    debian_version = packages.candidate_version("kubernetes-client")
    if debian_version is None:
        raise RuntimeError("apt knows no kubernetes-client package: is this Debian 12?")
    version = upstream_version(debian_version)
    if not version.startswith(f"{MINOR_VERSION}."):
        raise RuntimeError(f"Debian has Kubernetes {version}, not {MINOR_VERSION}")
    root = (cache or cache_folder()) / f"kubernetes-{debian_version}"
    programs = Programs(version, root / "bin")
    with building(root):
        programs.folder.mkdir(exist_ok=True)
        if not programs.path("kubectl").exists():
            _extract_kubectl(programs, root / "download")
        absent = [name for name in BUILT if not programs.path(name).exists()]
        if absent:
            _build(programs, debian_version, absent, root / "build")
            shutil.rmtree(root / "build")
    return programs


def _extract_kubectl(programs: Programs, work: Path) -> None:
    """Take `kubectl` out of its package, as installing it could replace the machine's own."""
    archive = packages.download_binary("kubernetes-client", work)
    run(["dpkg-deb", "-x", archive, work / "root"])
    place(work / "root" / "usr" / "bin" / "kubectl", programs.path("kubectl"))
    shutil.rmtree(work)


def _build(programs: Programs, debian_version: str, names: Iterable[str], work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    # Kubernetes 1.20 builds in GOPATH mode only, from its place inside the GOPATH.
    tree = work / "gopath" / "src" / "k8s.io" / "kubernetes"
    environment = {
        "GOPATH": str(work / "gopath"),
        "GOCACHE": str(work / "go-cache"),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "PWD": str(tree),
    }
    if not tree.exists():
        say("fetching Debian's kubernetes source package")
        archive = packages.download_source("kubernetes", debian_version, work)
        unpacked = work / "unpacked"
        unpacked.mkdir(exist_ok=True)
        # Debian's patches change only how kubectl prints, and kubectl comes built.
        run(["tar", "-C", unpacked, "--strip-components=1", "-xf", archive])
        tree.parent.mkdir(parents=True, exist_ok=True)
        unpacked.rename(tree)
    if not (tree / _OPENAPI).exists():
        _generate_openapi(tree, work, environment)
    for name in names:
        start = time.monotonic()
        target = work / name
        run(
            [
                *(GO, "build", "-trimpath", "-ldflags", _ldflags(programs.version)),
                *("-o", target, f"./cmd/{name}"),
            ],
            cwd=tree,
            env=environment,
        )
        place(target, programs.path(name))
        say(f"built {name} in {time.monotonic() - start:.0f} s")


def _ldflags(version: str) -> str:
    """Return linker flags with the version stamps that parts compare and nodes report."""
    major, minor, _ = version.split(".", 2)
    stamps = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "debian",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    holders = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    prefixes = ("", "k8s.io/kubernetes/vendor/")
    words = ["-s", "-w"]
    for prefix in prefixes:
        for holder in holders:
            words += [f"-X {prefix}{holder}.{key}={value}" for key, value in stamps.items()]
    return " ".join(words)


def _generate_openapi(tree: Path, work: Path, environment: dict[str, str]) -> None:
    """Generate the API server's OpenAPI definitions: the one generated file Debian leaves out."""
    say("generating the OpenAPI definitions")
    generator = work / "openapi-gen"
    run(
        [GO, "build", "-o", generator, "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"],
        cwd=tree,
        env=environment,
    )
    inputs = ",".join(f"k8s.io/kubernetes/{folder}" for folder in _openapi_folders(tree))
    run(
        [
            *(generator, "--logtostderr", "-i", inputs),
            *("-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi"),
            *("-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"),
            *("-r", work / "openapi-violations.report"),
        ],
        cwd=tree,
        # The generator runs `go list` for its type checks.
        env={**environment, "PATH": f"{GO.parent}:{os.environ['PATH']}"},
    )


def _openapi_folders(tree: Path) -> list[str]:
    """Return the folders, relative to ``tree``, that ask for OpenAPI definitions."""
    return sorted({str(path.parent.relative_to(tree)) for path in _tagged_sources(tree)})


def _tagged_sources(tree: Path) -> Iterator[Path]:
    # `vendor/k8s.io/api` and its neighbours are symbolic links into staging/: named through
    # vendor/, as the compiler sees them, and os.walk must be told to follow each of them.
    roots = [tree / "cmd", tree / "pkg", tree / "plugin", *(tree / "vendor/k8s.io").iterdir()]
    for root in roots:
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = [name for name in subfolders if name != "_examples"]
            relative = f"{Path(folder).relative_to(tree)}/"
            if relative.startswith(_OPENAPI_SKIPPED):
                continue
            for name in files:
                path = Path(folder, name)
                if name.endswith(".go") and _OPENAPI_TAG.search(path.read_bytes()):
                    yield path
