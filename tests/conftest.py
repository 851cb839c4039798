from __future__ import annotations

import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.fakehost import FakeHost

# A loaded machine is no fault of the code; a run finds what the run before it found.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

# A shell starts a background command with SIGINT ignored, and programs inherit that: those
# that the tests interrupt must not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def state_dirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = tmp_path_factory.mktemp("state")
    return (str(base / str(number)) for number in count())


@pytest.fixture(autouse=True)
def state_dir(state_dirs: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test's own: what a device did before belongs to the node, and outlives processes."""
    folder = next(state_dirs)
    monkeypatch.setenv("SPU_STATE_DIR", folder)
    return Path(folder)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host")


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory for sockets, whose paths have to stay below 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="spu-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
