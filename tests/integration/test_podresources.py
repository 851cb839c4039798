"""Who holds the devices, asked of kubelets old and new, present and not."""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from moffett_device_plugin.grpc.messages import Code, StatusError
from moffett_device_plugin.grpc.server import Server, Unary
from moffett_device_plugin.podresources.client import (
    Holder,
    Holdings,
    PodResourcesError,
    list_holders,
    list_holdings,
)
from moffett_device_plugin.podresources.watcher import PodResourcesWatcher, RefreshIntervals
from tests.support.podresources import V1, V1ALPHA1, PodResources

SPU = "moffett.ai/spu"
ONE, TWO = "0000:36:00.0", "0000:37:00.0"
PODS = {
    # In v1 a resource has one entry for each NUMA node.
    "ml/train/main": {SPU: [[ONE], [TWO]], "nvidia.com/gpu": [["GPU-1"]]},
    "ml/train/side": {"moffett.ai/spu.shared": [["card-0000:33:00.0::7"]]},
    "default/idle/main": {},
}
SLOW = RefreshIntervals(interval=3600)


def on_a_loop(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    """Gives it the path of a socket that nobody listens on yet, and ten seconds."""

    async def limited(path: Path) -> None:
        async with asyncio.timeout(10):
            await test(path)

    def run(short_dir: Path) -> None:
        asyncio.run(limited(short_dir / "kubelet.sock"))

    run.__name__ = test.__name__
    return run


def holder(pod: str, container: str = "main", namespace: str = "ml") -> Holder:
    return Holder(namespace, pod, container)


@on_a_loop
async def test_holders_by_resource_and_unit(socket: Path) -> None:
    async with PodResources(PODS).serving(socket) as kubelet:
        assert await list_holders(socket) == {
            SPU: {ONE: (holder("train"),), TWO: (holder("train"),)},
            "nvidia.com/gpu": {"GPU-1": (holder("train"),)},
            "moffett.ai/spu.shared": {"card-0000:33:00.0::7": (holder("train", "side"),)},
        }
    assert kubelet.calls == [V1], "the newer version alone was asked"


@on_a_loop
async def test_an_old_kubelet_is_asked_in_the_old_way(socket: Path) -> None:
    async with PodResources(PODS).serving(socket, [V1ALPHA1]) as kubelet:
        assert (await list_holders(socket))[SPU][ONE] == (holder("train"),)
    assert kubelet.calls == [V1ALPHA1]


@on_a_loop
async def test_a_unit_of_a_finished_pod_and_of_the_next_has_both(socket: Path) -> None:
    pods = {"ml/done/main": {SPU: [[ONE]]}, "ml/next/main": {SPU: [[ONE], [ONE]]}}
    async with PodResources(pods).serving(socket):
        assert (await list_holders(socket))[SPU][ONE] == (holder("done"), holder("next"))


@on_a_loop
async def test_why_there_is_no_answer_is_one_line(socket: Path) -> None:
    with pytest.raises(PodResourcesError, match="No such file or directory"):
        await list_holders(socket)
    busy = StatusError(Code.RESOURCE_EXHAUSTED, "rejected by rate limit")
    async with PodResources(failure=busy).serving(socket) as kubelet:
        with pytest.raises(PodResourcesError, match="rejected by rate limit"):
            await list_holders(socket)
    assert kubelet.calls == [V1], "another version would be no less busy"
    async with PodResources().serving(socket, []):
        with pytest.raises(PodResourcesError, match=r"UNIMPLEMENTED.*v1alpha1"):
            await list_holders(socket)


@on_a_loop
async def test_a_kubelet_that_hangs_or_babbles_is_given_up_on(socket: Path) -> None:
    with sockets.socket(sockets.AF_UNIX) as listener:  # accepts and never says a word
        listener.bind(str(socket))
        listener.listen()
        with pytest.raises(PodResourcesError, match=r"no response in 0\.05 s"):
            await list_holders(socket, timeout=0.05)
    socket.unlink()
    async with asyncio.TaskGroup() as tasks:
        server = Server({V1: Unary(lambda _: b"\xff\xff\xff")}, tasks)
        loop = asyncio.get_running_loop()
        unix = await loop.create_unix_server(server.protocol, str(socket))
        with pytest.raises(PodResourcesError, match="not a list of pods"):
            await list_holders(socket)
        unix.close()
        server.close()


# -- kept true ------------------------------------------------------------------------


@on_a_loop
async def test_a_nudge_finds_the_pod_as_soon_as_the_kubelet_lists_it(socket: Path) -> None:
    kubelet = PodResources()
    asked = asyncio.Event()
    async with kubelet.serving(socket), asyncio.TaskGroup() as tasks:

        async def ask() -> Holdings:
            holdings = await list_holdings(socket)
            asked.set()
            return holdings

        pod_resources_watcher = PodResourcesWatcher(
            intervals=RefreshIntervals(3600, (0.001,) * 1000), ask=ask
        )
        running = tasks.create_task(pod_resources_watcher.run())
        await asked.wait()
        asked.clear()
        pod_resources_watcher.refresh_soon()
        await asked.wait()
        kubelet.pods = PODS  # only now, after the first look
        await pod_resources_watcher.holders.after(0)
        assert pod_resources_watcher.holders.value[SPU][ONE] == (holder("train"),)
        running.cancel()


@on_a_loop
async def test_pods_that_end_are_seen_within_the_interval(socket: Path) -> None:
    kubelet = PodResources(PODS)
    async with kubelet.serving(socket), asyncio.TaskGroup() as tasks:
        pod_resources_watcher = PodResourcesWatcher(socket, RefreshIntervals(interval=0.01))
        running = tasks.create_task(pod_resources_watcher.run())
        await pod_resources_watcher.holders.after(0)
        kubelet.pods = {}
        await pod_resources_watcher.holders.after(1)
        assert pod_resources_watcher.holders.value == {}
        running.cancel()


def test_an_absent_kubelet_is_told_once_and_so_is_its_return(
    short_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = short_dir / "kubelet.sock"

    async def run() -> None:
        pod_resources_watcher = PodResourcesWatcher(path, SLOW)
        for _ in range(3):
            assert not await pod_resources_watcher.refresh()
        assert "No such file" in str(pod_resources_watcher.error)
        async with PodResources(PODS).serving(path):
            assert await pod_resources_watcher.refresh()
            assert not await pod_resources_watcher.refresh(), "nothing changed"
        assert pod_resources_watcher.error is None
        await pod_resources_watcher.refresh()
        assert pod_resources_watcher.holders.value[SPU], "what was known stands while it is away"

    asyncio.run(run())
    events = [record.message for record in caplog.records]
    assert events == [
        "pod-resources-unavailable",
        "pod-resources-available",
        "pod-resources-unavailable",
    ]
