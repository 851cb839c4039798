"""The kubelet's directory, and who else may be in it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.deviceplugin.kubelet_directory import KubeletDirectory
from moffett_device_plugin.deviceplugin.listener import Listener
from moffett_device_plugin.deviceplugin.socket_names import new_socket_name, socket_prefix
from moffett_device_plugin.grpc import server as grpc_server
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.server import Server, Streaming, Unary
from tests.support.running import RESOURCE, on_a_loop, running, within


def link_to_a_secret(folder: Path, link: Path) -> Path:
    secret = folder / "secret"
    secret.write_text("not yours")
    secret.chmod(0o644)
    link.symlink_to(secret)
    return secret


@on_a_loop
async def test_nobody_but_the_owner_can_ever_connect(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    loop = asyncio.get_running_loop()
    real = loop.create_unix_server

    async def looked_at(*args: object, **named: object) -> asyncio.Server:
        # Before this nobody listens, and a connection is refused whatever the mode.
        modes.append(stat.S_IMODE((short_dir / "p.sock").stat().st_mode))
        return await real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "create_unix_server", looked_at)
    before = os.umask(0)
    try:
        listener = Listener(short_dir / "p.sock", asyncio.Protocol)
        await listener.ensure()
    finally:
        os.umask(before)
    listener.close_server()
    assert modes == [0o600]
    assert stat.S_IMODE((short_dir / "p.sock").stat().st_mode) == 0o600


@on_a_loop
async def test_a_link_in_our_sockets_place_is_not_followed(short_dir: Path) -> None:
    path = short_dir / "p.sock"
    secret = link_to_a_secret(short_dir, path)
    listener = Listener(path, asyncio.Protocol)
    with pytest.raises(OSError, match="in use"):
        await listener.ensure()
    assert secret.read_text() == "not yours"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o644
    assert not listener.intact()


@on_a_loop
async def test_a_socket_that_took_our_place_is_neither_served_nor_removed(short_dir: Path) -> None:
    listener = Listener(short_dir / "p.sock", asyncio.Protocol)
    await listener.ensure()
    (short_dir / "p.sock").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(short_dir / "p.sock"))
        assert not listener.intact()
        listener.unlink()
        listener.close_server()
        assert (short_dir / "p.sock").exists()


def test_nobody_can_tell_the_name_of_our_socket_before_it_is_there() -> None:
    assert len({new_socket_name(RESOURCE) for _ in range(50)}) == 50


@pytest.mark.parametrize("kind", ["link", "file", "pipe", "directory"])
def test_a_kubelet_socket_that_is_no_socket_is_no_kubelet(short_dir: Path, kind: str) -> None:
    path = short_dir / api.KUBELET_SOCKET
    with socket.socket(socket.AF_UNIX) as real:
        real.bind(str(short_dir / "elsewhere"))
        if kind == "link":
            path.symlink_to(short_dir / "elsewhere")
        elif kind == "file":
            path.touch()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
        directory = KubeletDirectory(short_dir)
        directory.rescan()
    assert directory.listing.value.exists
    assert directory.listing.value.kubelet is None


@on_a_loop
async def test_whoever_poses_as_the_kubelet_learns_four_things_about_us(short_dir: Path) -> None:
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    def register(request: bytes) -> bytes:
        asked.put_nowait(request)
        return b""

    async with asyncio.TaskGroup() as tasks, running(short_dir, kubelet=False) as it:
        false = Server({api.REGISTER: Unary(register)}, tasks)
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(
            false.protocol, str(short_dir / api.KUBELET_SOCKET)
        )
        it.start_plugin()
        told = pb.RegisterRequest.FromString(await within(asked.get()))
        listener.close()
        false.close()
    fields = {field.name for field, _ in told.ListFields()}
    assert fields == {"version", "endpoint", "resource_name", "options"}
    assert (told.version, told.resource_name) == ("v1beta1", RESOURCE)
    assert told.endpoint.startswith(socket_prefix(RESOURCE))


@on_a_loop
async def test_of_planted_names_only_dead_sockets_are_cleared_away(short_dir: Path) -> None:
    prefix = socket_prefix(RESOURCE)
    dead = short_dir / f"{prefix}cccccc.sock"
    foreign = short_dir / "gpu.sock"
    async with running(short_dir) as it:  # a kubelet that starts clears its directory
        secret = link_to_a_secret(short_dir, short_dir / f"{prefix}aaaaaa.sock")
        (short_dir / f"{prefix}bbbbbb.sock").write_text("a file")
        for path in (dead, foreign):
            with socket.socket(socket.AF_UNIX) as gone:
                gone.bind(str(path))
        it.start_plugin()
        await it.allocatable(6)

        async def cleared() -> None:
            while dead.exists():
                await asyncio.sleep(0)

        await within(cleared())
        assert secret.read_text() == "not yours"
        assert (short_dir / f"{prefix}aaaaaa.sock").is_symlink()
        assert (short_dir / f"{prefix}bbbbbb.sock").read_text() == "a file"
        assert foreign.exists()


class _Silent(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@on_a_loop
async def test_nobody_can_crowd_the_kubelet_out(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "MAX_CONNECTIONS", 8)
    began = asyncio.Event()

    async def watch(request: bytes):  # type: ignore[no-untyped-def]
        yield b"list"
        began.set()
        await asyncio.Event().wait()

    path = short_dir / "p.sock"
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        served = Server({"/t/Watch": Streaming(watch), "/t/Ask": Unary(bytes.upper)}, tasks)
        listener = await loop.create_unix_server(served.protocol, str(path))
        kubelet = await Channel.connect(path)
        stream = kubelet.stream("/t/Watch", b"")
        assert await within(anext(stream)) == b"list"
        await within(began.wait())
        crowd = [(await loop.create_unix_connection(_Silent, str(path)))[1] for _ in range(20)]
        for one in crowd[:13]:  # the oldest of them make room, and not the kubelet
            await within(one.lost.wait())
        assert not kubelet.lost.is_set()
        assert await kubelet.unary("/t/Ask", b"ok", 5) == b"OK"
        async with await Channel.connect(path) as another:
            assert await another.unary("/t/Ask", b"ok", 5) == b"OK"
        await stream.aclose()
        kubelet.close()
        listener.close()
        served.close()
    assert sum(not one.lost.is_set() for one in crowd) <= 8
