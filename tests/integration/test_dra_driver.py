"""The DRA driver with a kubelet, an API server and files: what pods and administrators see."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin import api
from moffett_device_plugin.api import dra_health_pb2 as health
from moffett_device_plugin.dra.context import DriverTimes
from moffett_device_plugin.dra.names import DRIVER, device_name
from moffett_device_plugin.fake_kubelet.dra import NoDriverError
from tests.support.apiserver import HANG, NODE, refusal
from tests.support.claims import message, reference, result
from tests.support.dra import TIMES, dra_node
from tests.support.running import failing, on_a_loop, until, within
from tests.support.values import ids_of

IDS = ids_of("2xS30")
A, B = IDS[:2]
TRAIN, OTHER = reference(), reference("other", 2)


# -- registration -----------------------------------------------------------------------


@on_a_loop
async def test_a_kubelet_finds_the_driver_and_its_services(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        (found,) = node.kubelet.registered(DRIVER)
        assert found.services == (*api.DRA_SERVICES, *api.HEALTH_SERVICES), "the newest first"
        assert len(bytes(found.socket)) < 107
        await node.stop(driver)
        await node.until(lambda: not node.kubelet.registered(DRIVER))
        assert node.sockets == []


@pytest.mark.parametrize("version", api.DRA_SERVICES)
@on_a_loop
async def test_a_claim_is_prepared_and_unprepared(tmp_path: Path, version: str) -> None:
    async with dra_node(tmp_path, known=(version,)) as node:
        await node.start()
        node.allocate(TRAIN, result(A), result(B))
        answer = await node.prepare(TRAIN)
        assert not answer.error
        assert [
            (list(one.request_names), one.pool_name, one.device_name) for one in answer.devices
        ] == [(["spus"], NODE, device_name(A)), (["spus"], NODE, device_name(B))]
        names = [name for one in answer.devices for name in one.cdi_device_ids]
        assert set(names) <= _engine_knows(node.cdi)
        assert await node.prepare(TRAIN) == answer, "as often as it is asked"
        assert await node.unprepare(TRAIN) == ""
        assert node.specs == []
        assert await node.unprepare(TRAIN) == "", "as often as it is asked"


def _engine_knows(cdi: Path) -> set[str]:
    specs = [json.loads(path.read_text()) for path in cdi.glob("*.json")]
    return {f"{spec['kind']}={device['name']}" for spec in specs for device in spec["devices"]}


@on_a_loop
async def test_a_kubelet_that_restarts_registers_the_driver_again(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A))
        first = await node.prepare(TRAIN)
        await node.restart_kubelet()
        await until(driver.registered, lambda: driver.registered.value == 2)
        await node.until(lambda: bool(node.kubelet.registered(DRIVER)))
        assert await node.prepare(TRAIN) == first
        assert await node.unprepare(TRAIN) == ""


@on_a_loop
async def test_a_socket_that_was_removed_is_made_again(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        driver.registrar.socket.unlink()
        await until(driver.registered, lambda: driver.registered.value == 2)


@on_a_loop
async def test_the_socket_of_an_instance_that_was_killed_is_removed(tmp_path: Path) -> None:
    import socket

    async with dra_node(tmp_path) as node:
        node.kubelet.registry.mkdir(exist_ok=True)
        stale = node.kubelet.registry / "spu-dra-0123ab-reg.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(stale))
            foreign = node.kubelet.registry / "gpu.example.com-reg.sock"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(foreign))
        driver = await node.start()

        async def gone() -> None:
            while stale.exists():
                await asyncio.sleep(0.01)

        await within(gone())
        assert node.sockets == sorted([foreign.name, driver.registrar.socket.name])


@on_a_loop
async def test_a_registration_that_is_refused_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with dra_node(tmp_path, refuse="no handler registered") as node:
        starting = asyncio.ensure_future(node.start())

        async def refused() -> logging.LogRecord:
            while True:
                for record in caplog.records:
                    if record.message == "dra-registration-refused":
                        return record
                await asyncio.sleep(0.01)

        record = await within(refused())
        assert record.levelno == logging.ERROR
        assert vars(record)["why"] == "no handler registered"
        starting.cancel()


# -- two instances, as in an update -------------------------------------------------------


@on_a_loop
async def test_one_instance_unprepares_what_another_prepared(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        old = await node.start()
        node.allocate(TRAIN, result(A))
        answer = await node.prepare(TRAIN)
        new = await node.start()
        assert len(node.kubelet.registered(DRIVER)) == 2
        assert await node.prepare(TRAIN) == answer
        await node.stop(old)
        await node.until(lambda: len(node.kubelet.registered(DRIVER)) == 1)
        assert new.claims.value[A][0].reference == TRAIN
        node.allocate(OTHER, result(A))
        assert "ml/train" in (await node.prepare(OTHER)).error
        assert await node.unprepare(TRAIN) == ""
        assert not (await node.prepare(OTHER)).error


@on_a_loop
async def test_two_instances_never_give_one_chip_to_two_claims(tmp_path: Path) -> None:
    """Whichever of them a kubelet calls, at the same time."""
    async with dra_node(tmp_path) as node:
        await node.start()
        await node.start()
        claims = [reference(f"job-{number}", number) for number in range(1, 9)]
        for who in claims:
            node.allocate(who, result(A))
        channels = [one.channel for one in node.kubelet.registered(DRIVER)]
        from moffett_device_plugin.api import dra_pb2 as pb

        async def call(number: int) -> str:
            request = pb.NodePrepareResourcesRequest(claims=[message(claims[number])])
            path = api.prepare_path(api.DRA_SERVICES[0])
            raw = await channels[number % 2].unary(path, request.SerializeToString(), 10)
            (answer,) = pb.NodePrepareResourcesResponse.FromString(raw).claims.values()
            return str(answer.error)

        errors = await asyncio.gather(*(call(number) for number in range(8)))
        assert errors.count("") == 1
        assert len(node.specs) == 1


# -- claims that cannot be prepared -------------------------------------------------------


@on_a_loop
async def test_one_claim_of_a_call_fails_and_the_others_are_prepared(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A))
        node.allocate(OTHER, result(A, driver="gpu.example.com"))
        gone = reference("gone", 3)
        answers = await node.kubelet.prepare(
            message(TRAIN), message(OTHER), message(gone), driver=DRIVER
        )
        assert not answers[TRAIN.uid].error
        assert "ml/other" in answers[OTHER.uid].error
        assert "does not exist" in answers[gone.uid].error
        assert driver.stats.refused == {"not-allocated": 1, "claim-gone": 1}


@on_a_loop
async def test_a_refusal_is_in_the_log_once_however_often_the_kubelet_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with dra_node(tmp_path) as node:
        await node.start()
        node.hardware.set(failing(node.hardware, A, "ecc"))
        await until(node.monitor.state, lambda: not node.monitor.state.value.healthy(A))
        node.allocate(TRAIN, result(A))
        for _ in range(3):
            assert A in (await node.prepare(TRAIN)).error
        assert len([r for r in caplog.records if r.message == "claim-refused"]) == 1
        node.hardware.set(type(node.hardware.faults)())
        await until(node.monitor.state, lambda: node.monitor.state.value.healthy(A))
        assert not (await node.prepare(TRAIN)).error


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "a/b", ".", "x" * 64, "a\0b"])
@on_a_loop
async def test_a_uid_is_no_path(tmp_path: Path, uid: str) -> None:
    async with dra_node(tmp_path) as node:
        await node.start()
        bad = replace(TRAIN, uid=uid)
        node.allocate(bad, result(A))
        assert (await node.prepare(bad)).error
        assert await node.unprepare(bad) == ""
        assert node.specs == []


@on_a_loop
async def test_a_kubelet_that_does_not_list_its_pods_gets_no_claim_prepared(
    tmp_path: Path,
) -> None:
    """A pod may hold the chip through the device plugin API."""
    async with dra_node(tmp_path) as node:
        node.pods.failure = RuntimeError("no")
        await node.start()
        node.allocate(TRAIN, result(A))
        assert "pod-resources" in (await node.prepare(TRAIN)).error
        node.pods.failure = None
        assert not (await node.prepare(TRAIN)).error


@on_a_loop
async def test_a_chip_of_a_device_plugin_pod_is_not_given_again(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        node.pods.pods = {"ml/old/main": {"moffett.ai/spu": [[A]]}}
        driver = await node.start()
        await until(driver.held, lambda: A in driver.held.value)
        node.allocate(TRAIN, result(A))
        assert "ml/old" in (await node.prepare(TRAIN)).error
        node.grants.add("moffett.ai/spu", [B])
        node.allocate(OTHER, result(B))
        assert "moffett.ai/spu" in (await node.prepare(OTHER)).error
        node.pods.pods = {}
        assert not (await node.prepare(TRAIN)).error


@on_a_loop
async def test_the_next_claim_waits_for_a_chip_that_is_being_unprepared(tmp_path: Path) -> None:
    """The scheduler is a moment ahead of the kubelet, which would try again after a minute."""
    async with dra_node(tmp_path) as node:
        driver = await node.start(replace(TIMES, held=10.0))
        node.allocate(TRAIN, result(A))
        node.allocate(OTHER, result(A))
        assert not (await node.prepare(TRAIN)).error
        waiting = asyncio.ensure_future(node.prepare(OTHER))
        asked = len(node.server.seen("GET", "other"))
        await node.server.until(lambda: len(node.server.seen("GET", "other")) > asked)
        assert await node.unprepare(TRAIN) == ""
        assert not (await within(waiting)).error
        assert driver.stats.refused == {}
        assert node.specs == [OTHER.uid]


@on_a_loop
async def test_after_the_driver_was_turned_off_only_what_is_prepared_goes_on(
    tmp_path: Path,
) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A))
        node.allocate(OTHER, result(B))
        await node.prepare(TRAIN)
        driver.accepting = False
        assert not (await node.prepare(TRAIN)).error
        assert "no longer" in (await node.prepare(OTHER)).error
        assert await node.unprepare(TRAIN) == ""


# -- the API server --------------------------------------------------------------------


@on_a_loop
async def test_without_an_api_server_prepared_claims_go_on_and_end(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        await node.start()
        node.allocate(TRAIN, result(A))
        answer = await node.prepare(TRAIN)
        await node.server.stop()
        assert await node.prepare(TRAIN) == answer
        assert "API server" in (await node.prepare(OTHER)).error
        assert await node.unprepare(TRAIN) == ""
        assert node.specs == []


@on_a_loop
async def test_an_api_server_that_hangs_holds_up_no_other_claim_for_long(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        await node.start()
        node.allocate(TRAIN, result(A))
        node.server.rule = lambda request: HANG if "/other" in request.path else None
        hung, prepared = await asyncio.gather(node.prepare(OTHER), node.prepare(TRAIN))
        assert "API server" in hung.error
        assert not prepared.error


@on_a_loop
async def test_a_right_that_is_missing_is_named(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        await node.start()
        node.server.rule = lambda request: (
            refusal(403, "Forbidden") if "resourceclaims" in request.path else None
        )
        error = (await node.prepare(TRAIN)).error
        assert "resourceclaims of resource.k8s.io" in error


# -- files -----------------------------------------------------------------------------


@on_a_loop
async def test_specs_that_were_removed_are_put_back_while_claims_are_in_use(
    tmp_path: Path,
) -> None:
    """By the engine's side: a container that restarts needs them."""
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A))
        answer = await node.prepare(TRAIN)
        (one,) = answer.devices
        node.pods.claims = {
            "ml/pod/main": {"ml/train": [(DRIVER, NODE, one.device_name, one.cdi_device_ids)]}
        }
        await until(
            driver._context.pod_resources.claims,
            lambda: bool(driver._context.pod_resources.claims.value),
        )
        for path in node.cdi.glob("*.json"):
            path.unlink()
        await _known(node.cdi, set(one.cdi_device_ids))
        assert driver.stats.restored == 1


@on_a_loop
async def test_an_emptied_directory_is_filled_again(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        await node.start()
        node.allocate(TRAIN, result(A))
        answer = await node.prepare(TRAIN)
        for path in node.cdi.iterdir():
            path.unlink()
        node.cdi.rmdir()
        await _known(node.cdi, {n for one in answer.devices for n in one.cdi_device_ids})
        assert await node.unprepare(TRAIN) == ""


@on_a_loop
async def test_a_chip_is_held_although_the_directory_was_emptied(tmp_path: Path) -> None:
    """Before the driver has looked again, and before the kubelet lists the pod."""
    async with dra_node(tmp_path) as node:
        await node.start(replace(TIMES, check=3600.0, sweep=3600.0))
        node.allocate(TRAIN, result(A))
        node.allocate(OTHER, result(A))
        await node.prepare(TRAIN)
        await asyncio.sleep(0)
        for path in node.cdi.iterdir():
            path.unlink()
        assert "ml/train" in (await node.prepare(OTHER)).error
        assert node.specs == [TRAIN.uid]


@on_a_loop
async def test_what_another_instance_unprepared_is_not_put_back(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        old = await node.start()
        node.allocate(TRAIN, result(A))
        await node.prepare(TRAIN)
        await node.start()  # which is called from now on
        assert await node.unprepare(TRAIN) == ""
        await until(old.claims, lambda: not old.claims.value)
        assert node.specs == []
        assert old.stats.restored == 0


async def _known(cdi: Path, names: set[str]) -> None:
    async def wait() -> None:
        while not names <= _engine_knows(cdi):
            await asyncio.sleep(0.01)

    await within(wait(), "spec")


@on_a_loop
async def test_after_a_reboot_claims_are_prepared_anew(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A))
        answer = await node.prepare(TRAIN)
        await node.stop(driver)
        again = await node.start(boot_id="next")
        assert node.specs == []
        assert not again.claims.value
        node.allocate(OTHER, result(B))
        assert not (await node.prepare(OTHER)).error
        assert await node.prepare(TRAIN) == answer


# -- claims that no longer exist ----------------------------------------------------------


@on_a_loop
async def test_the_record_of_a_claim_that_no_longer_exists_is_swept(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A))
        node.allocate(OTHER, result(B))
        await node.prepare(TRAIN)
        await node.prepare(OTHER)
        del node.server.claims["ml", "train"]
        await until(driver.claims, lambda: A not in driver.claims.value)
        assert node.specs == [OTHER.uid], "who exists keeps its own"
        assert driver.stats.swept == 1


@on_a_loop
async def test_a_claim_that_a_container_uses_is_not_swept(tmp_path: Path) -> None:
    """A pod that was deleted by force: its claim is gone, and it still runs."""
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A))
        (one,) = (await node.prepare(TRAIN)).devices
        node.pods.claims = {
            "ml/pod/main": {"ml/train": [(DRIVER, NODE, one.device_name, one.cdi_device_ids)]}
        }
        del node.server.claims["ml", "train"]
        asked = len(node.server.seen("GET", "resourceclaims"))
        await node.server.until(lambda: len(node.server.seen("GET", "resourceclaims")) > asked + 3)
        assert node.specs == [TRAIN.uid]
        node.pods.claims = {}
        await until(driver.claims, lambda: not driver.claims.value)


@on_a_loop
async def test_nothing_is_swept_before_its_time_or_without_the_api_server(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        times = DriverTimes(check=0.05, sweep=0.02, orphan=3600, get=0.5)
        await node.start(times)
        node.allocate(TRAIN, result(A))
        await node.prepare(TRAIN)
        del node.server.claims["ml", "train"]
        asked = len(node.server.seen("GET", "resourceclaims"))
        await node.server.until(lambda: len(node.server.seen("GET", "resourceclaims")) > asked + 3)
        assert node.specs == [TRAIN.uid]


# -- health ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", api.HEALTH_SERVICES)
@on_a_loop
async def test_the_kubelet_hears_of_the_health_of_every_chip(tmp_path: Path, version: str) -> None:
    async with dra_node(tmp_path, known=(api.DRA_SERVICES[0], version)) as node:
        await node.start()
        (found,) = node.kubelet.registered(DRIVER)
        await node.until(lambda: len(found.health) == 6)
        assert {one.health for one in found.health.values()} == {health.HEALTHY}
        node.hardware.set(failing(node.hardware, A, "ecc"))
        sick = device_name(A)
        await node.until(lambda: found.health[sick].health == health.UNHEALTHY)
        assert "ecc" in found.health[sick].message
        assert found.health[sick].health_check_timeout_seconds > 20
        assert found.health[device_name(B)].health == health.HEALTHY
        node.hardware.set(type(node.hardware.faults)())
        await node.until(lambda: found.health[sick].health == health.HEALTHY)


@on_a_loop
async def test_health_is_repeated_before_the_kubelet_forgets_it(tmp_path: Path) -> None:
    from moffett_device_plugin.dra.healthstream import FORGET, REPEAT, HealthStream

    async with dra_node(tmp_path) as node:
        await until(node.monitor.state, lambda: node.monitor.state.value.settled)
        stream = HealthStream(node.monitor.state, NODE, repeat=0.05)
        (method, _) = stream.methods().values()
        reports = method.answer(b"")
        for _ in range(3):
            raw = await within(anext(reports))  # type: ignore[arg-type]
            assert len(health.NodeWatchResourcesResponse.FromString(raw).devices) == 6
        await reports.aclose()  # type: ignore[union-attr]
    assert REPEAT * 2 < FORGET


@on_a_loop
async def test_nobody_answers_after_the_end(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start(TIMES)
        await node.stop(driver)
        with pytest.raises(NoDriverError):
            await node.prepare(TRAIN)
