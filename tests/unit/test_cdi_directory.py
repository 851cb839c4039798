"""The spec's file: whole or not there, ours or replaced, and left alone when right."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from moffett_device_plugin.cdi.directory import CdiDirectory, CdiError
from moffett_device_plugin.cdi.names import IllegalNameError
from moffett_device_plugin.cdi.spec import Spec, build_spec
from tests.support.values import snapshot_of


def spec(node: str = "2xS30") -> Spec:
    built = build_spec(snapshot_of(node))
    assert built is not None
    return built


@pytest.fixture
def directory(tmp_path: Path) -> CdiDirectory:
    return CdiDirectory(tmp_path / "run" / "cdi")


def names(directory: CdiDirectory) -> list[str]:
    return [device["name"] for device in json.loads(directory.file.read_text())["devices"]]


def entries(directory: CdiDirectory) -> list[str]:
    return sorted(path.name for path in directory.path.iterdir())


def test_the_file_is_named_after_the_kind(tmp_path: Path) -> None:
    assert CdiDirectory(tmp_path).file.name == "moffett.ai-spu.json"
    with pytest.raises(IllegalNameError):
        CdiDirectory(tmp_path, "../../etc/passwd")


def test_directory_and_file_are_made_for_all_to_read(directory: CdiDirectory) -> None:
    old = os.umask(0o077)
    try:
        assert directory.write(spec())
    finally:
        os.umask(old)
    assert stat.S_IMODE(directory.file.stat().st_mode) == 0o644
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o755
    assert entries(directory) == ["moffett.ai-spu.json"]


def test_a_directory_that_is_there_keeps_its_mode(directory: CdiDirectory) -> None:
    directory.path.mkdir(parents=True, mode=0o700)
    directory.write(spec())
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_what_is_right_is_not_written_again(directory: CdiDirectory) -> None:
    directory.write(spec())
    before = directory.identity()
    assert not directory.write(spec())
    assert directory.identity() == before
    assert directory.write(spec("1xS4"))
    assert names(directory) == ["0000:34:00.0", "card-0000:34:00.0", "all"]


@pytest.mark.parametrize("damage", ["", "{", "longer"])
def test_what_is_wrong_is_replaced(directory: CdiDirectory, damage: str) -> None:
    directory.write(spec())
    right = directory.file.read_text()
    directory.file.write_text(right + " " if damage == "longer" else damage)
    assert directory.write(spec())
    assert directory.file.read_text() == right


def test_a_file_that_engines_may_not_read_is_replaced(directory: CdiDirectory) -> None:
    directory.write(spec())
    directory.file.chmod(0o600)
    assert directory.write(spec())
    assert stat.S_IMODE(directory.file.stat().st_mode) == 0o644


@pytest.mark.parametrize("holding", ["something else", "the very spec"])
def test_a_link_is_replaced_and_not_followed(
    directory: CdiDirectory, tmp_path: Path, holding: str
) -> None:
    directory.write(spec())
    victim = tmp_path / "victim"
    victim.write_text(directory.file.read_text() if holding == "the very spec" else "precious")
    before = victim.read_text()
    directory.file.unlink()
    directory.file.symlink_to(victim)
    assert directory.write(spec())
    assert not directory.file.is_symlink()
    assert victim.read_text() == before
    directory.file.unlink()
    directory.file.symlink_to(victim)
    directory.remove()
    assert victim.exists()


def test_a_pipe_in_its_place_holds_nobody_up(directory: CdiDirectory) -> None:
    directory.path.mkdir(parents=True)
    os.mkfifo(directory.file)
    assert directory.write(spec())
    assert directory.file.is_file()


def test_a_socket_in_its_place_is_replaced(
    directory: CdiDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.path.mkdir(parents=True)
    monkeypatch.chdir(directory.path)  # a socket's whole path may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(directory.file.name)
    assert directory.write(spec())
    assert directory.file.is_file()


def test_an_error_says_what_and_why_and_leaves_nothing(directory: CdiDirectory) -> None:
    directory.file.mkdir(parents=True)
    with pytest.raises(CdiError, match=r"cannot write .*moffett\.ai-spu\.json: Is a directory"):
        directory.write(spec())
    with pytest.raises(CdiError, match=r"cannot remove .*moffett\.ai-spu\.json: "):
        directory.remove()
    assert entries(directory) == ["moffett.ai-spu.json"]


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "cdi").write_text("")
    directory = CdiDirectory(tmp_path / "cdi")
    with pytest.raises(CdiError, match="cannot write"):
        directory.write(spec())
    assert not directory.remove()


def test_removing_says_whether_there_was_one(directory: CdiDirectory) -> None:
    assert not directory.remove()
    directory.write(spec())
    other = directory.path / "vendor.com-net.json"
    other.write_text("{}")
    assert directory.remove()
    assert not directory.remove()
    assert entries(directory) == [other.name]


def test_a_reader_never_sees_half_of_it(directory: CdiDirectory) -> None:
    """What an engine would read (*.json and *.yaml) is always one spec or the other."""
    small, large = spec("1xS4"), spec("40xS30")
    directory.write(small)
    sizes = {len(small["devices"]), len(large["devices"])}
    seen: set[int] = set()
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for name in os.listdir(directory.path):
                if not name.endswith((".json", ".yaml")):
                    continue
                try:
                    found = json.loads((directory.path / name).read_text())
                except ValueError as error:
                    wrong.append(f"{name}: {error}")
                else:
                    seen.add(len(found["devices"]))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(100):
            directory.write(large)
            directory.write(small)
    finally:
        done.set()
        reader.join()
    assert not wrong
    assert seen <= sizes
