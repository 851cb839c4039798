"""What both runs of pytest in the guest have: the PCI bus, and what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bus import Bus
from .measured import Measured

_measured = pytest.StashKey[Measured]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add where `run` put what it built."""
    parser.addoption("--modules", type=Path, required=True, help="the SPU modules")


def pytest_configure(config: pytest.Config) -> None:
    """Begin without figures."""
    config.stash[_measured] = Measured()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    measured = terminalreporter.config.stash[_measured]
    for line in (*measured.lines, *measured.table()):
        terminalreporter.write_line(f"measured: {line}")


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Measured:
    """Takes lines and times for the summary."""
    return pytestconfig.stash[_measured]


@pytest.fixture(scope="session")
def bus(pytestconfig: pytest.Config) -> Bus:
    """The guest's PCI bus, without any card."""
    return Bus(pytestconfig.getoption("--modules"))
