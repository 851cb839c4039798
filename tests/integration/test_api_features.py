"""Events, condition and labels as the cluster sees them, through outages and restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.kubernetes.client import ApiClient
from moffett_device_plugin.kubernetes.condition import ConditionReporter
from moffett_device_plugin.kubernetes.errors import Backoff
from moffett_device_plugin.kubernetes.events import Holders, timestamp
from moffett_device_plugin.kubernetes.features import run_api_features
from moffett_device_plugin.kubernetes.nodelabels import NodeLabels, NodeLabelSink
from moffett_device_plugin.kubernetes.rate_limiter import TokenBucket
from moffett_device_plugin.kubernetes.reporter import EventReporter
from moffett_device_plugin.kubernetes.settings import ApiFeatures
from moffett_device_plugin.labels.compute import ResourceFacts
from moffett_device_plugin.runtime.kept_running import kept_running
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.apiserver import CLOSE, Answer, ApiServer, api_server, refusal
from tests.support.running import until, within
from tests.support.values import ids_of, snapshot_of

IDS = ids_of("2xS30")
SICK = IDS[5]


def faulty(*names: str) -> NodeState:
    faults = Faults()
    for name in names:
        faults = faults.with_fault(SICK, name)
    snapshot = snapshot_of("2xS30", faults)
    return NodeState(
        snapshot, evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses, settled=True
    )


@dataclass
class Pod:
    namespace: str = "default"
    pod: str = "inference"
    container: str = "main"


class Cluster:
    """An API server, our client, and the node's state that a test changes."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.client = ApiClient(server.settings(request_timeout=0.5))
        self.state: Watchable[NodeState] = Watchable(NodeState())
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, run: Awaitable[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(run)
        self.tasks.append(task)
        return task

    def reporter(self, bucket: TokenBucket | None = None) -> EventReporter:
        def holders() -> Holders:
            return {SICK: [Pod()]}

        return EventReporter(self.client, self.state, holders, backoff=impatient(), bucket=bucket)

    def keeper(self, heartbeat: float = 1000.0) -> ConditionReporter:
        return ConditionReporter(self.client, self.state, heartbeat, backoff=impatient())

    @property
    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.server.events.values()]

    async def until_events(self, count: int) -> None:
        await self.server.until(lambda: len(self.server.events) == count)

    async def until_condition(self, status: str) -> None:
        def holds() -> bool:
            condition = self.server.condition
            return condition is not None and condition["status"] == status

        await self.server.until(holds)


def impatient() -> Backoff:
    return Backoff(first=0.01, most=0.02)


def on_cluster(folder: Path, play: Callable[[Cluster], Awaitable[None]]) -> None:
    async def run() -> None:
        async with api_server(folder) as server:
            cluster = Cluster(server)
            try:
                await play(cluster)
                ended = [task for task in cluster.tasks if task.done()]
                assert not ended, "no task of ours ends by itself"
            finally:
                for task in cluster.tasks:
                    task.cancel()
                await asyncio.gather(*cluster.tasks, return_exceptions=True)
                cluster.client.close()

    asyncio.run(run())


# -- events ----------------------------------------------------------------------------


def test_a_failure_and_a_recovery_are_events_on_the_node(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.reporter().run())
        for state in (faulty(), faulty("ecc"), faulty()):
            cluster.state.set(state)
            await until(cluster.state, lambda: True)
            await asyncio.sleep(0)  # let it be noticed
        await cluster.until_events(2)
        assert cluster.reasons == ["SPUUnhealthy", "SPUHealthy"]
        unhealthy = next(iter(cluster.server.events.values()))
        assert "held by default/inference (main)" in unhealthy["message"]

    on_cluster(tmp_path, play)


def test_the_same_failure_again_counts_up_one_event(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.reporter().run())
        cluster.state.set(faulty("ecc"))
        await cluster.until_events(1)
        cluster.state.set(faulty())
        await cluster.until_events(2)
        cluster.state.set(faulty("ecc"))
        (name, event), *_ = cluster.server.events.items()
        await cluster.server.until(lambda: event["count"] == 2)
        cluster.state.set(faulty())
        await cluster.server.until(lambda: len(cluster.server.seen("PATCH")) == 2)
        del cluster.server.events[name]  # an hour later
        cluster.state.set(faulty("ecc"))
        await cluster.server.until(lambda: name in cluster.server.events)
        assert cluster.server.events[name]["count"] == 3

    on_cluster(tmp_path, play)


def test_an_outage_loses_nothing_and_keeps_the_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    began = time.time()
    clock = [began]
    monkeypatch.setattr(time, "time", lambda: clock[0])

    async def play(cluster: Cluster) -> None:
        task = cluster.start(cluster.reporter().run())
        cluster.state.set(faulty())
        await cluster.server.stop()
        for minute in range(500):  # eight hours of a chip that comes and goes
            clock[0] += 60
            cluster.state.set(faulty("ecc") if minute % 2 == 0 else faulty())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        end = clock[0]
        assert not task.done()
        clock[0] += 3600
        await cluster.server.start()
        await cluster.server.until(
            lambda: any(
                event["lastTimestamp"] == timestamp(end) for event in cluster.server.events.values()
            )
        )
        events = list(cluster.server.events.values())
        assert events[0]["firstTimestamp"] == timestamp(began + 60)
        assert events[-1]["reason"] == "SPUHealthy"
        assert sum(event["count"] for event in events) == 500

    on_cluster(tmp_path, play)
    told = [record.message for record in caplog.records]
    assert told.count("api-unavailable") == told.count("api-available") == 1


def test_an_answer_that_got_lost_makes_no_second_event(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.script.append(Answer(raw=b"HTTP/1.1 2", then_close=True, done=True))
        cluster.start(cluster.reporter().run())
        cluster.state.set(faulty("ecc"))
        await cluster.server.until(lambda: len(cluster.server.seen("POST")) == 2)
        cluster.state.set(faulty("ecc", "aer"))
        await cluster.until_events(2)
        assert cluster.reasons == ["SPUUnhealthy", "SPUUnhealthy"]

    on_cluster(tmp_path, play)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_refusals_that_pass_only_delay(tmp_path: Path, status: int) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.script.extend([refusal(status), CLOSE, refusal(status)])
        cluster.start(cluster.reporter().run())
        cluster.state.set(faulty("ecc"))
        await cluster.until_events(1)

    on_cluster(tmp_path, play)


def test_an_event_that_no_server_takes_does_not_block_the_next(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.script.append(refusal(422, "Invalid"))
        cluster.start(cluster.reporter().run())
        cluster.state.set(faulty("ecc"))
        await cluster.server.until(lambda: len(cluster.server.seen("POST")) == 1)
        cluster.state.set(faulty())
        await cluster.until_events(1)
        assert cluster.reasons == ["SPUHealthy"]

    on_cluster(tmp_path, play)


def test_a_node_that_loses_everything_writes_no_more_than_its_budget(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.reporter(TokenBucket(3, 1000.0)).run())
        faults = Faults()
        for device in IDS:
            faults = faults.with_fault(device, "ecc")
        snapshot = snapshot_of("2xS30", faults)
        health_statuses = evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses
        cluster.state.set(NodeState(snapshot, health_statuses, settled=True))
        await cluster.until_events(3)
        *_, summary = cluster.server.events.values()
        assert summary["message"].startswith("4 changes of 4 devices, now: ")
        assert SICK in summary["message"]

    on_cluster(tmp_path, play)


# -- condition -------------------------------------------------------------------------


def test_the_condition_follows_the_devices(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.keeper().run())
        cluster.state.set(faulty())
        await cluster.until_condition("True")
        cluster.state.set(faulty("ecc"))
        await cluster.until_condition("False")
        ready, ours = cluster.server.node["status"]["conditions"]
        assert ready == {"type": "Ready", "status": "True"}, "the kubelet's is left alone"
        assert SICK in ours["message"]

    on_cluster(tmp_path, play)


def test_a_restart_is_no_transition(tmp_path: Path) -> None:
    long_ago = "2026-01-01T00:00:00Z"

    async def play(cluster: Cluster) -> None:
        old = {"type": "SPUHealthy", "status": "True", "lastTransitionTime": long_ago}
        cluster.server.node["status"]["conditions"].append(old)
        cluster.start(cluster.keeper().run())
        cluster.state.set(faulty())
        await cluster.server.until(lambda: len(cluster.server.seen("PATCH")) == 1)
        assert cluster.server.condition is not None
        assert cluster.server.condition["lastTransitionTime"] == long_ago
        cluster.state.set(faulty("ecc"))
        await cluster.until_condition("False")
        assert cluster.server.condition["lastTransitionTime"] != long_ago

    on_cluster(tmp_path, play)


def test_what_does_not_change_is_not_written_but_for_the_heartbeat(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.keeper().run())
        cluster.state.set(faulty())
        await cluster.until_condition("True")
        for _ in range(50):
            cluster.state.set(faulty())
            await asyncio.sleep(0)
        cluster.state.set(faulty("ecc"))
        await cluster.until_condition("False")
        assert len(cluster.server.seen("PATCH")) == 2
        assert len(cluster.server.seen("GET")) == 1

    on_cluster(tmp_path, play)


def test_the_heartbeat_beats_and_is_no_transition(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.keeper(heartbeat=0.02).run())
        cluster.state.set(faulty())
        await cluster.server.until(lambda: len(cluster.server.seen("PATCH")) >= 4)
        times = {
            patch.content["status"]["conditions"][0]["lastTransitionTime"]
            for patch in cluster.server.seen("PATCH")
        }
        assert len(times) == 1

    on_cluster(tmp_path, play)


def test_after_an_outage_the_condition_tells_what_is_true_then(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.keeper().run())
        cluster.state.set(faulty())
        await cluster.until_condition("True")
        await cluster.server.stop()
        cluster.state.set(faulty("ecc"))
        await asyncio.sleep(0)
        cluster.state.set(faulty("aer"))
        await cluster.server.start()
        await cluster.until_condition("False")
        assert "aer-fatal" in json.dumps(cluster.server.condition)

    on_cluster(tmp_path, play)


def test_a_transition_has_the_time_it_happened_not_when_it_could_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    clock = [began]
    monkeypatch.setattr(time, "time", lambda: clock[0])

    async def play(cluster: Cluster) -> None:
        cluster.start(cluster.keeper().run())
        cluster.state.set(faulty())
        await cluster.until_condition("True")
        clock[0] += 60
        cluster.server.rule = lambda _: refusal(503)
        cluster.state.set(faulty("ecc"))
        await cluster.server.until(lambda: len(cluster.server.seen("PATCH")) >= 2)
        clock[0] += 3600
        cluster.server.rule = lambda _: None
        await cluster.until_condition("False")
        assert cluster.server.condition is not None
        assert cluster.server.condition["lastTransitionTime"] == timestamp(began + 60)
        assert cluster.server.condition["lastHeartbeatTime"] == timestamp(began + 3660)

    on_cluster(tmp_path, play)


# -- labels ------------------------------------------------------------------------------


def test_our_labels_are_put_and_others_left_alone(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        cluster.server.labels["moffett.ai/spu.replicas"] = "4"  # of an earlier configuration
        sink = NodeLabelSink(cluster.client)
        await sink.put({"moffett.ai/spu.count": "6"})
        await sink.put({"moffett.ai/spu.count": "6"})
        assert cluster.server.labels == {"zone": "a", "moffett.ai/spu.count": "6"}
        assert len(cluster.server.requests) == 1

    on_cluster(tmp_path, play)


def test_labels_that_somebody_took_off_come_back_within_the_hour(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        now = [1000.0]
        sink = NodeLabelSink(cluster.client, clock=lambda: now[0])
        await sink.put({"moffett.ai/spu.count": "6"})
        cluster.server.labels.clear()
        now[0] += 3601
        await sink.put({"moffett.ai/spu.count": "6"})
        assert cluster.server.labels == {"moffett.ai/spu.count": "6"}

    on_cluster(tmp_path, play)


def test_an_api_that_refuses_labels_is_not_asked_at_every_change(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        now = [1000.0]
        sink = NodeLabelSink(
            cluster.client, backoff=Backoff(chance=lambda: 1.0), clock=lambda: now[0]
        )
        cluster.server.script.append(refusal(403))
        for count in range(10):
            await sink.put({"moffett.ai/spu.count": str(count)})
        assert len(cluster.server.requests) == 1
        now[0] += 31
        await sink.put({"moffett.ai/spu.count": "10"})
        assert cluster.server.labels["moffett.ai/spu.count"] == "10"

    on_cluster(tmp_path, play)


def reader(cluster: Cluster) -> NodeLabels:
    return NodeLabels(cluster.client, Watchable(None), backoff=impatient())


def test_the_nodes_labels_are_seen_as_they_change(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        labels = reader(cluster)
        assert labels.latest.value is None
        cluster.start(labels.run())
        await until(labels.latest, lambda: labels.latest.value == {"zone": "a"})
        await cluster.server.until(lambda: cluster.server.watching == 1)
        cluster.server.relabel(pool="inference")
        await until(labels.latest, lambda: "pool" in (labels.latest.value or {}))
        version = labels.latest.version
        cluster.server.push("MODIFIED", cluster.server.node)  # of its status, say
        cluster.server.relabel(pool="training")
        await until(labels.latest, lambda: labels.latest.version > version)
        assert labels.latest.version == version + 1
        assert labels.latest.value == {"zone": "a", "pool": "training"}

    on_cluster(tmp_path, play)


@pytest.mark.parametrize("end", ["in order", "cut"])
def test_a_watch_that_ends_goes_on_where_it_was(tmp_path: Path, end: str) -> None:
    async def play(cluster: Cluster) -> None:
        labels = reader(cluster)
        cluster.start(labels.run())
        await cluster.server.until(lambda: cluster.server.watching == 1)
        cluster.server.relabel(pool="a")
        await until(labels.latest, lambda: "pool" in (labels.latest.value or {}))
        if end == "cut":
            cluster.server.cut()
        else:
            cluster.server.push_raw(None)
        watches = cluster.server.requests
        await cluster.server.until(lambda: len([r for r in watches if "watch" in r.query]) == 2)
        assert watches[-1].query["resourceVersion"] == "2"
        assert len([r for r in watches if "watch" not in r.query]) == 1, "no second list"

    on_cluster(tmp_path, play)


def test_a_version_that_is_too_old_is_mended_by_a_list_and_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(cluster: Cluster) -> None:
        labels = reader(cluster)
        cluster.start(labels.run())
        await cluster.server.until(lambda: cluster.server.watching == 1)
        cluster.server.labels["missed"] = "yes"
        cluster.server.push("ERROR", {"code": 410, "reason": "Expired"})
        await until(labels.latest, lambda: "missed" in (labels.latest.value or {}))

    on_cluster(tmp_path, play)
    assert [record.message for record in caplog.records] == []


def test_an_outage_leaves_the_labels_as_they_were(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        labels = reader(cluster)
        cluster.start(labels.run())
        await cluster.server.until(lambda: cluster.server.watching == 1)
        await cluster.server.stop()
        cluster.server.labels["missed"] = "yes"
        cluster.server.node["metadata"]["resourceVersion"] = "2"
        assert labels.latest.value == {"zone": "a"}
        # The new server cannot know what came after the old one's version.
        cluster.server.rule = lambda request: (
            refusal(410, "Expired") if request.query.get("resourceVersion") == "1" else None
        )
        await cluster.server.start()
        await until(labels.latest, lambda: "missed" in (labels.latest.value or {}))

    on_cluster(tmp_path, play)


# -- all of it ---------------------------------------------------------------------------


def test_everything_that_is_on_runs_and_ends_with_its_task(tmp_path: Path) -> None:
    async def play(cluster: Cluster) -> None:
        facts = [ResourceFacts("moffett.ai/spu")]
        labels: Watchable[Mapping[str, str] | None] = Watchable(None)
        features = ApiFeatures(labels=True, events=True, condition=True)
        settings = cluster.server.settings()
        cluster.state.set(faulty("ecc"))
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(
            run_api_features(settings, features, cluster.state, lambda: facts, dict, labels)
        )
        await cluster.until_condition("False")
        await cluster.until_events(1)
        await until(labels, lambda: "moffett.ai/spu.count" in (labels.value or {}))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert asyncio.all_tasks() - before <= cluster.server.tasks

    on_cluster(tmp_path, play)


def test_a_defect_of_an_extra_is_told_and_does_not_end_the_daemon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs: Watchable[int] = Watchable(0)

    async def broken() -> None:
        runs.set(runs.value + 1)
        raise ValueError("nobody thought of that")

    async def run() -> None:
        task = asyncio.ensure_future(kept_running("events", broken, pause=0.01))
        await within(until(runs, lambda: runs.value == 3))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert {record.message for record in caplog.records} == {"api-feature-failed"}
    assert caplog.records[0].exc_info is not None
