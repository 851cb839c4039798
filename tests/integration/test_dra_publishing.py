"""The node's slice in the API server: right, and right again whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.dra.names import device_name
from moffett_device_plugin.dra.publishing import Publisher, PublisherContext
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.kubernetes.dra import DraClient
from moffett_device_plugin.kubernetes.rate_limiter import TokenBucket
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.apiserver import NODE, ApiServer, api_server, refusal
from tests.support.running import on_a_loop, until
from tests.support.values import ids_of, state_of

IDS = ids_of("2xS30")
A = IDS[0]
NAME = f"00000-spu.moffett.ai-{NODE}"
SICK = state_of("2xS30", Faults().with_fault(A, "ecc"))


@dataclass
class Publishing:
    server: ApiServer
    publisher: Publisher
    state: Watchable[NodeState]
    registered: Watchable[int]
    held: Watchable[Mapping[str, str]]
    on: Watchable[bool]

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.server.until(condition)

    @property
    def devices(self) -> dict[str, dict[str, Any]]:
        found = self.server.slices.get(NAME)
        return {} if found is None else {d["name"]: d for d in found["spec"]["devices"]}

    @property
    def tainted(self) -> list[str]:
        return [name for name, device in self.devices.items() if device.get("taints")]


@asynccontextmanager
async def publishing(
    folder: Path, *, on: bool = True, dra: bool = True, bucket: TokenBucket | None = None
) -> AsyncIterator[Publishing]:
    async with api_server(folder) as server, asyncio.TaskGroup() as tasks:
        server.dra = dra
        server.node["metadata"]["uid"] = "node-uid"
        state, registered = Watchable(state_of("2xS30")), Watchable(1)
        held: Watchable[Mapping[str, str]] = Watchable({})
        turned_on = Watchable(on)
        client = DraClient(server.settings(request_timeout=1.0))
        context = PublisherContext(NODE, state, registered, held, turned_on)
        publisher = Publisher(client, context, bucket)
        running = tasks.create_task(publisher.run())
        try:
            yield Publishing(server, publisher, state, registered, held, turned_on)
        finally:
            running.cancel()
            client.close()


@on_a_loop
async def test_the_slice_is_there_and_owned_by_the_node(tmp_path: Path) -> None:
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        stored = it.server.slices[NAME]
        (owner,) = stored["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", NODE, "node-uid")
        assert stored["spec"]["nodeName"] == stored["spec"]["pool"]["name"] == NODE


@on_a_loop
async def test_a_sick_chip_is_tainted_until_it_is_well(tmp_path: Path) -> None:
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        it.state.set(SICK)
        await it.until(lambda: it.tainted == [device_name(A)])
        it.state.set(state_of("2xS30"))
        await it.until(lambda: not it.tainted)
        it.held.set({A: "held by a pod"})
        await it.until(lambda: it.tainted == [device_name(A)])


@on_a_loop
async def test_the_same_state_is_not_written_again(tmp_path: Path) -> None:
    """Nor what this instance wrote itself."""
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        it.state.set(state_of("2xS30"))
        it.registered.set(2)
        it.state.set(SICK)
        await it.until(lambda: bool(it.tainted))
        assert len(it.server.seen("PATCH")) == 2


@on_a_loop
async def test_a_chip_that_flaps_costs_a_bounded_number_of_writes(tmp_path: Path) -> None:
    """And what is missing is back at once all the same."""
    async with publishing(tmp_path, bucket=TokenBucket(2, 3600.0)) as it:
        await it.until(lambda: len(it.devices) == 6)
        it.state.set(SICK)
        await it.until(lambda: bool(it.tainted))
        it.state.set(state_of("2xS30"))
        await it.until(lambda: not it.tainted)
        it.state.set(SICK)  # the third change has to wait
        it.server.remove_slice(NAME)
        await it.until(lambda: it.tainted == [device_name(A)])
        assert len(it.server.seen("PATCH")) == 4


@on_a_loop
async def test_a_change_that_had_to_wait_is_written(tmp_path: Path) -> None:
    async with publishing(tmp_path, bucket=TokenBucket(1, 0.3)) as it:
        await it.until(lambda: len(it.devices) == 6)
        it.state.set(SICK)
        await it.until(lambda: bool(it.tainted))
        it.state.set(state_of("2xS30"))
        await it.until(lambda: not it.tainted)


@on_a_loop
async def test_a_node_of_many_chips_has_several_slices_that_belong_together(
    tmp_path: Path,
) -> None:
    """A server takes 64 devices in one."""
    first, last = ids_of("30xS30")[0], ids_of("30xS30")[-1]
    sick = Faults().with_fault(first, "ecc").with_fault(last, "ecc")
    async with publishing(tmp_path) as it:

        def complete() -> bool:
            specs = [one["spec"] for one in it.server.slices.values()]
            pools = {(s["pool"]["generation"], s["pool"]["resourceSliceCount"]) for s in specs}
            tainted = [d["name"] for s in specs for d in s["devices"] if d.get("taints")]
            return (
                sum(len(s["devices"]) for s in specs) == 90
                and len(specs) == 2
                and len(pools) == 1
                and sorted(tainted) == [device_name(first), device_name(last)]
            )

        await it.until(lambda: len(it.devices) == 6)
        it.state.set(state_of("30xS30", sick))
        await it.until(complete)
        it.server.remove_slice(NAME)
        await it.until(complete)
        it.state.set(state_of("2xS30"))
        await it.until(lambda: list(it.server.slices) == [NAME] and len(it.devices) == 6)


@on_a_loop
async def test_what_a_starting_kubelet_deletes_is_back_at_once(tmp_path: Path) -> None:
    """It does so in the background: possibly after it has registered the driver."""
    async with publishing(tmp_path) as it:
        for round_ in range(3):
            await it.until(lambda: len(it.devices) == 6)
            it.registered.set(round_ + 2)
            it.server.remove_slice(NAME)
        await it.until(lambda: len(it.devices) == 6)


@on_a_loop
async def test_what_somebody_edits_is_corrected(tmp_path: Path) -> None:
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        edited = {
            **it.server.slices[NAME],
            "spec": {**it.server.slices[NAME]["spec"], "devices": []},
        }
        it.server.put_slice(NAME, edited)
        await it.until(lambda: len(it.devices) == 6)
        # One of another name would double the devices.
        it.server.put_slice("other", it.server.slices[NAME])
        await it.until(lambda: list(it.server.slices) == [NAME])


@on_a_loop
async def test_a_node_that_is_made_anew_owns_a_new_slice(tmp_path: Path) -> None:
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        it.server.node["metadata"]["uid"] = "second"
        it.server.remove_slice(NAME)  # by garbage collection
        await it.until(
            lambda: (
                NAME in it.server.slices
                and it.server.slices[NAME]["metadata"]["ownerReferences"][0]["uid"] == "second"
            )
        )


@on_a_loop
async def test_nothing_is_published_before_the_state_is_settled_or_the_kubelet_there(
    tmp_path: Path,
) -> None:
    async with publishing(tmp_path) as it:
        it.registered.set(0)
        it.state.set(NodeState())
        await it.until(lambda: bool(it.server.seen("GET", "resourceslices")))
        assert not it.server.seen("PATCH")
        it.registered.set(1)
        it.state.set(state_of("2xS30"))
        await it.until(lambda: len(it.devices) == 6)


@on_a_loop
async def test_a_write_that_failed_is_tried_until_it_succeeds(tmp_path: Path) -> None:
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        it.server.rule = lambda r: refusal(503, "busy") if r.method == "PATCH" else None
        it.state.set(SICK)
        await it.until(lambda: len(it.server.seen("PATCH")) > 1)
        assert not it.tainted
        it.server.rule = lambda _: None
        await it.until(lambda: bool(it.tainted))


@on_a_loop
async def test_after_the_api_server_was_away_the_slice_is_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        await it.server.stop()
        it.state.set(SICK)
        published = it.publisher.published
        await until(published, lambda: not published.value)
        await it.server.start()
        await it.until(lambda: bool(it.tainted))
    said, *_ = [r for r in caplog.records if r.message == "api-unavailable"]
    assert "the slices are those of before" in vars(said)["effect"]


@on_a_loop
async def test_where_taints_are_dropped_the_sick_chip_leaves_the_slice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with publishing(tmp_path) as it:
        it.server.keeps_taints = False
        it.state.set(SICK)
        await it.until(lambda: len(it.devices) == 5)
        it.state.set(state_of("2xS30"))
        await it.until(lambda: len(it.devices) == 6)
        assert len([r for r in caplog.records if r.message == "dra-field-dropped"]) == 1


@on_a_loop
async def test_an_api_server_that_keeps_taints_from_now_on_gets_them(tmp_path: Path) -> None:
    async with publishing(tmp_path) as it:
        it.server.keeps_taints = False
        it.state.set(SICK)
        await it.until(lambda: len(it.devices) == 5)
        await it.server.stop()  # its feature gate is turned on
        it.server.keeps_taints = True
        await it.server.start()
        await it.until(lambda: it.tainted == [device_name(A)])


@on_a_loop
async def test_turned_off_the_slices_go_and_others_stay(tmp_path: Path) -> None:
    async with publishing(tmp_path) as it:
        await it.until(lambda: len(it.devices) == 6)
        it.on.set(False)
        await it.until(lambda: not it.server.slices)
        it.on.set(True)
        await it.until(lambda: len(it.devices) == 6)


@on_a_loop
async def test_a_server_without_dra_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with publishing(tmp_path, dra=False) as it:
        await it.until(lambda: bool(it.server.seen("GET", "resourceslices")))
        for _ in range(100):
            if any(r.message == "dra-unavailable" for r in caplog.records):
                break
            await asyncio.sleep(0.01)
        assert len([r for r in caplog.records if r.message == "dra-unavailable"]) == 1
        assert not it.server.seen("PATCH")
