"""Debian packages: installing what the tier needs, and reading apt's configuration.

Everything comes from whatever mirrors the machine's apt is set up with; apt itself says
which those are, so neither the deb822 nor the classic sources format is parsed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .shell import output, run

# What the tier needs on top of a minimal Debian 12.
REQUIRED = (
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "busybox-static",
    "etcd-server",
    "golang-1.19-go",
    "iproute2",
    "mmdebstrap",
    "openssl",
    "podman",
    "python3-venv",
    "runc",
    "util-linux",
)

# Version lines of these are printed with every run.
REPORTED = ("etcd-server", "containerd", "runc", "containernetworking-plugins", "golang-1.19-go")

_NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}


@dataclass(frozen=True, slots=True)
class Repository:
    """One Debian suite that the machine's apt is configured with."""

    uri: str
    suite: str
    component: str

    def source_line(self) -> str:
        """Return the one-line ``deb-src`` entry for this repository."""
        return f"deb-src {self.uri} {self.suite} {self.component}"


def installed_version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    result = run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package], check=False)
    status, _, version = result.stdout.partition(" ")
    return version if result.returncode == 0 and status == "installed" else None


def missing(packages: tuple[str, ...] = REQUIRED) -> list[str]:
    """Return those of ``packages`` that are not installed."""
    return [package for package in packages if installed_version(package) is None]


def update_index() -> None:
    """Refresh apt's package lists."""
    run(["apt-get", "-q", "update"], env=_NONINTERACTIVE)


def ensure_installed(packages: tuple[str, ...] = REQUIRED) -> list[str]:
    """Install what is missing of ``packages`` and return the names that were."""
    absent = missing(packages)
    if absent:
        update_index()
        # No service may be started by the installation: the tier starts its own etcd and
        # containerd. policy-rc.d is Debian's documented way to say so; a machine that
        # already has one keeps it.
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            run(
                ["apt-get", "-q", "-y", "--no-install-recommends", "install", *absent],
                env=_NONINTERACTIVE,
            )
        finally:
            if ours:
                policy.unlink()
    return absent


def debian_repositories() -> list[Repository]:
    """Return the Debian suites apt knows, from apt's own account of its indexes."""
    listing = output(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
            "Created-By: Packages",
        ]
    )
    found: dict[Repository, None] = {}
    for line in listing.splitlines():
        origin, uri, suite, component = line.split("|")
        if origin == "Debian":
            found[Repository(uri, suite, component)] = None
    return list(found)


def download_binary(package: str, folder: Path) -> Path:
    """Download one binary package without installing it and return its file.

    For packages that would collide with something the machine has already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{package}_*.deb"):
        stale.unlink()
    # As root apt drops to its own user, which cannot write to just any folder.
    run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=folder)
    return next(folder.glob(f"{package}_*.deb"))


def candidate_version(package: str) -> str | None:
    """Return the version of a binary package that apt would install, or None."""
    for line in output(["apt-cache", "policy", package]).splitlines():
        label, _, version = line.strip().partition(": ")
        if label == "Candidate" and version != "(none)":
            return version
    return None


def download_source(package: str, version: str, folder: Path) -> Path:
    """Download a source package (not unpacked) and return its ``.orig.tar`` archive.

    The source index goes into a private apt tree below ``folder``, so the machine's own
    configuration, which usually has no ``deb-src`` entries, stays as it is. Signatures and
    checksums are verified by apt as ever.
    """
    tree = folder / "apt"
    (tree / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (tree / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    lines = [repository.source_line() for repository in debian_repositories()]
    (tree / "sources.list").write_text("\n".join(lines) + "\n")
    options = [
        "-q",
        *("-o", f"Dir::Etc::sourcelist={tree}/sources.list"),
        *("-o", "Dir::Etc::sourceparts=/dev/null"),
        *("-o", f"Dir::State::lists={tree}/lists"),
        *("-o", f"Dir::Cache={tree}/cache"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    run(["apt-get", *options, "update"])
    run(["apt-get", *options, "source", "--download-only", f"{package}={version}"], cwd=folder)
    return next(folder.glob(f"{package}_*.orig.tar.*"))
