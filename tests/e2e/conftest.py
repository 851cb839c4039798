"""The cluster for the whole session, the plugin for a module, pods for a test."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import kubernetes
from cluster.cluster import Cluster, running_cluster
from cluster.host import HostInUseError
from cluster.plugin import NAMESPACE, Plugin, wait_for_count, wait_for_phase, workload
from cluster.shell import run

ROOT = Path(__file__).resolve().parents[2]
MANUAL = ROOT / "deploy" / "manual"
MANIFESTS = Path(__file__).resolve().parent / "manifests"
SIMULATED_CARDS = "2xS30"

_stages = pytest.StashKey[list[tuple[str, float]]]()
_figures = pytest.StashKey[list[str]]()
_cluster = pytest.StashKey[Cluster]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options: what is under test, on which Kubernetes, and how long."""
    parser.addoption(
        "--kubernetes",
        choices=kubernetes.RELEASES,
        default=kubernetes.RELEASES[-1],
        help="the Kubernetes release to run on",
    )
    parser.addoption(
        "--restarts",
        type=int,
        default=3,
        help="how often test_no_gap.py restarts the kubelet; 20 for a long run",
    )
    parser.addoption(
        "--plugin-image",
        type=Path,
        default=ROOT / "dist" / "moffett-k8s-device-plugin-v0.1.0.tar",
        help="the archive that deploy/image/build made",
    )


def pytest_configure(config: pytest.Config) -> None:
    """End by SIGTERM as by an interrupt: with the cluster taken down."""
    config.stash[_stages] = []
    config.stash[_figures] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep to the tests where kubelets differ on a release between the oldest and the current
    one. Files that the command line names always run."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    if named or config.getoption("--kubernetes") not in kubernetes.BETWEEN:
        return
    others = [item for item in items if item.path.name not in kubernetes.WHERE_THEY_DIFFER]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item.path.name in kubernetes.WHERE_THEY_DIFFER]


@contextmanager
def stage(config: pytest.Config, name: str) -> Iterator[None]:
    """Time a stage for the summary."""
    start = time.monotonic()
    yield
    config.stash[_stages].append((name, time.monotonic() - start))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long each stage took, and what the tests measured."""
    for name, seconds in terminalreporter.config.stash[_stages]:
        terminalreporter.write_line(f"stage: {name}: {seconds:.1f} s")
    for figure in terminalreporter.config.stash[_figures]:
        terminalreporter.write_line(f"measured: {figure}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Iterator[None]:
    """Attach the cluster's state to the report of a test that failed."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    cluster = item.config.stash.get(_cluster, None)
    if report.failed and cluster is not None:
        report.sections.append(("cluster", _diagnosis(cluster)))
    return report  # type: ignore[return-value]


def _diagnosis(cluster: Cluster) -> str:
    # The last lines only: events and logs of earlier tests are there too.
    parts = [
        "\n".join(cluster.kubectl(*words, check=False).stdout.splitlines()[-25:])
        for words in (
            ("get", "pods", "--all-namespaces", "-o", "wide"),
            ("get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp"),
            ("get", "node", cluster.layout.node, "-o", "jsonpath={.status.allocatable}"),
        )
    ]
    for pod in cluster.find("pods", NAMESPACE):
        name = pod["metadata"]["name"]
        parts.append(f"--- log of {name}\n{cluster.logs(name, NAMESPACE)}")
    parts.append(cluster.describe_services())
    return "\n".join(parts)


@pytest.fixture(scope="session")
def plugin_image(request: pytest.FixtureRequest) -> Path:
    """The image archive under test."""
    archive: Path = request.config.getoption("--plugin-image").resolve()
    if not archive.exists():
        pytest.fail(f"{archive} is missing: run deploy/image/build")
    return archive


@pytest.fixture(scope="session")
def simulated_image(plugin_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same image under the same tag, but for two variables in its environment."""
    archive = tmp_path_factory.mktemp("image") / "simulated.tar"
    run(
        [
            *(ROOT / "deploy" / "image" / "build", "--from", plugin_image),
            *("--env", f"SPU_SIMULATE={SIMULATED_CARDS}"),
            # The tests break the same chip again and again.
            *("--env", "SPU_FLAPPING_SECONDS=none", "--output", archive),
        ]
    )
    return archive


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A real cluster, brought up for the session."""
    config = request.config
    with stage(config, "Kubernetes programs"):
        programs = kubernetes.ensure_programs(config.getoption("--kubernetes"))
    print("\n".join(["", *kubernetes.versions(programs)]), file=sys.__stderr__, flush=True)
    start = time.monotonic()
    try:
        with running_cluster(programs) as running:
            config.stash[_stages].append(("cluster up", time.monotonic() - start))
            config.stash[_cluster] = running
            yield running
            start = time.monotonic()
            del config.stash[_cluster]
    except HostInUseError as error:
        pytest.exit(str(error), returncode=2)
    config.stash[_stages].append(("cluster down", time.monotonic() - start))


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """A function that takes a line for the summary."""
    return pytestconfig.stash[_figures].append


@pytest.fixture(scope="module")
def plugin(cluster: Cluster, simulated_image: Path) -> Iterator[Plugin]:
    """The manual's DaemonSet, unchanged, on a node whose cards are simulated."""
    cluster.import_image(simulated_image)
    cluster.create(MANUAL / "moffett-device-plugin.yml")
    running = Plugin(cluster, "name=moffett-device-plugin-ds")
    try:
        wait_for_count(cluster, 6)
        yield running
    finally:
        running.discard("moffett-device-plugin-daemonset")


StartPod = Callable[..., str]


@pytest.fixture
def start_pod(cluster: Cluster) -> Iterator[StartPod]:
    """A function that starts a pod with some devices; the pods go with the test."""
    names: list[str] = []

    def start(name: str, spus: int = 0, *, privileged: bool = False, wait: bool = True) -> str:
        names.append(name)
        cluster.create(workload(name, spus, privileged=privileged))
        if wait:
            wait_for_phase(cluster, name)
        return name

    yield start
    if names:
        cluster.discard("pod", *names)
