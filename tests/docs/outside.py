"""Programs that do not run here, and what can be said of their command lines all the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from .documents import ROOT

#: Program -> why it is not run. One that is in no list fails the test: add it here with
#: the reason, or say `not run: WHY` above the block.
WHY = {
    "kubectl": "needs a cluster",
    "helm": "needs a cluster",
    "kustomize": "needs a cluster",
    "kind": "makes a cluster",
    "minikube": "makes a cluster",
    "docker": "needs Docker",
    "podman": "tests/e2e/test_cdi_podman.py",
    "ctr": "needs containerd",
    "skopeo": "needs a registry",
    "nerdctl": "needs containerd",
    "crictl": "needs a CRI engine",
    "nsenter": "needs the cluster of the end-to-end tests",
    "git": "changes the work tree",
    "pip": "installs",
    "python": "installs, or takes minutes",
    "systemctl": "changes the machine",
    "apt-get": "changes the machine",
    "sha256sum": "needs what was built",
    "cosign": "needs a registry",
    "mx-smi": "needs the hardware",
    "uv": "needs the network",
}
#: Of the project's own programs, those that take minutes or install something.
SLOW = (
    ".ci/run", "bench", "deploy/image/build", "run", "tests/deploy/run", "tests/e2e/run",
    "tests/faults/run", "tests/fuzz/run", "tests/monitoring/run", "tests/security/run",
    "tests/vm/run",
    "tools/build-dist", "tools/docs", "tools/list-licences", "tools/pictures",
    "tools/lock", "tools/reference", "tools/generate-api",
)  # fmt: skip
KUBECTL = {
    "annotate", "apply", "auth", "config", "cordon", "cp", "create", "debug", "delete",
    "describe", "diff", "drain", "edit", "events", "exec", "explain", "get", "kustomize",
    "label", "logs", "patch", "port-forward", "rollout", "run", "scale", "set", "taint", "top",
    "uncordon", "version", "wait",
}  # fmt: skip
HELM = {
    "dependency", "get", "history", "install", "lint", "list", "package", "pull", "repo",
    "rollback", "show", "status", "template", "test", "uninstall", "upgrade", "version",
}  # fmt: skip
#: Subcommands that change nothing.
READING = {
    "auth", "config", "describe", "diff", "events", "exec", "explain", "get", "history", "lint",
    "list", "logs", "port-forward", "rollout", "show", "status", "template", "top", "version",
    "wait",
}  # fmt: skip
#: What changes a cluster, and the tests that do it to a real one, or (tests/deploy) check what
#: it would send. A command that is in none of these has to say `not run: WHY`.
COVERED = (
    (r"kubectl (create|apply|delete) -f (deploy/manual/)?[a-z-]+\.yml", "tests/e2e/test_manual.py"),
    (r"kubectl (apply|delete) -f deploy/manifests/try-it\.yaml", "tests/e2e/test_chart.py"),
    (r"kubectl (apply|delete) -f deploy/manifests/", "tests/deploy/test_generated.py"),
    (r"kubectl (apply|delete) -k deploy/kustomize/", "tests/deploy/test_generated.py"),
    (r"kubectl (apply|delete) -f -", "tests/deploy/test_kubernetes.py"),
    (r"kubectl annotate node ", "tests/e2e/test_chart.py"),
    (r"helm (install|upgrade|rollback|uninstall)", "tests/e2e/test_chart.py"),
)
#: kubectl's and helm's flags before the subcommand that have a value of their own.
VALUED = {"-n", "--namespace", "--context", "--kubeconfig", "--kube-context"}


def words_of(line: str) -> list[str]:
    """The words of the line's commands, up to the first comment."""
    return shlex.split(line.partition("\n")[0].replace("$(", " ").rstrip(")"), comments=True)


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a pipeline or list, without assignments and sudo."""
    words: list[str] = []
    for word in [*words_of(line), ";"]:
        if word in (";", "|", "&&", "||", "&"):
            while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in ("sudo", "time")):
                words = words[1:]
            if words:
                yield words
            words = []
        elif word in (">", "<") or word.startswith(("<<", "2>")):
            continue
        else:
            words.append(word)


def problem(words: list[str]) -> str | None:
    """What is wrong with a command that is not run; None when nothing can be found."""
    program = words[0]
    for path in _paths(words):
        if not (ROOT / path).exists():
            return f"{path} is not there"
    if program in ("kubectl", "helm"):
        return _wrong_with_cluster_command(words)
    return None


def _wrong_with_cluster_command(words: list[str]) -> str | None:
    program = words[0]
    rest = _without_flags_in_front(words[1:])
    if not rest or rest[0] not in (KUBECTL if program == "kubectl" else HELM):
        return f"{program} has no {rest[:1]}"
    if rest[0] in READING:
        return None
    line = " ".join([program, *rest])
    for form, test in COVERED:
        if re.match(form, line):
            return None if (ROOT / test).exists() else f"{test} is not there"
    return f"no test does: {line}"


def _without_flags_in_front(words: list[str]) -> list[str]:
    while words and words[0].startswith("-"):
        words = words[2 if words[0] in VALUED else 1 :]
    return words


def _paths(words: list[str]) -> Iterator[str]:
    """The words that name something of this repository."""
    for word in words:
        path = word.removeprefix("./").partition("=")[2] if "=" in word else word
        path = path.removeprefix("./")
        if re.match(r"(deploy|docs|tests|tools|bench|src|\.ci)/", path) and "*" not in path:
            yield path
