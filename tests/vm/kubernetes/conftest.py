"""A whole Kubernetes in the guest, with 24 chips on the guest's bus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from node.guest_cluster import running_cluster
from node.measured import Measured, Stopwatch

pytest_plugins = ["node.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what is under test."""
    parser.addoption("--plugin-image", type=Path, required=True, help="the plugin's image")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, measured: Measured) -> Iterator[Cluster]:
    """A real cluster that has the image."""
    watch = Stopwatch()
    with running_cluster() as cluster:
        measured(f"Kubernetes {cluster.programs.version} up in {watch.seconds:.0f} s")
        cluster.import_image(pytestconfig.getoption("--plugin-image"))
        yield cluster
