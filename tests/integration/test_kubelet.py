"""The plugin and a kubelet that behaves as real ones do, at every turn of their lives."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.deviceplugin.registration import RegistrationTimeouts
from moffett_device_plugin.deviceplugin.socket_names import new_socket_name
from moffett_device_plugin.fake_kubelet.behaviour import CURRENT, DEFAULT, UNTIL_1_36, Behaviour
from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError
from moffett_device_plugin.grpc.messages import Code, StatusError
from moffett_device_plugin.grpc.server import Server, Unary
from moffett_device_plugin.resources.plugin_config import Monitoring, PluginConfig
from tests.support.running import RESOURCE, on_a_loop, running, simulated, until, within

KUBELETS = {"1.20": DEFAULT, "1.36": UNTIL_1_36, "1.37": CURRENT}
#: Registrations that are accepted for an instance that leaves: one when it removes its
#: sockets, and one more when it has ended, where the kubelet's client was cleared.
FOR_A_DEPARTURE = {DEFAULT: 1, UNTIL_1_36: 2, CURRENT: 2}


@on_a_loop
async def test_a_pod_gets_two_chips_of_one_card_and_frees_them(short_dir: Path) -> None:
    async with running(short_dir) as it:
        node = simulated()
        it.start_plugin(node)
        await it.allocatable(6)
        pod = await it.kubelet.admit("pod", RESOURCE, 2)
        cards = {c.serial for c in node.layout.chips if c.bus_id in pod.device_ids}
        assert len(cards) == 1
        assert pod.response.envs["MOFFETT_SPU_IDS"] == ",".join(pod.device_ids)
        paths = [(d.host_path, d.container_path, d.permissions) for d in pod.response.devices]
        assert paths == [("/dev/null", f"/dev/spu-sim{i}", "rw") for i in (0, 1)]
        with pytest.raises(AdmissionError, match="Requested: 5, Available: 4"):
            await it.kubelet.admit("greedy", RESOURCE, 5)
        it.kubelet.delete("pod")
        assert len((await it.kubelet.admit("all", RESOURCE, 6)).device_ids) == 6


@on_a_loop
async def test_a_failed_device_is_unhealthy_and_recovers_by_itself(
    short_dir: Path,
) -> None:
    async with running(short_dir) as it:
        node = simulated()
        it.start_plugin(node)
        await it.allocatable(6)
        sound, chip = node.faults, node.layout.chips[0].bus_id
        node.set(sound.with_fault(chip, "config"))
        await it.allocatable(5)
        assert it.kubelet.capacity(RESOURCE) == 6
        assert chip not in it.kubelet.healthy_ids(RESOURCE)
        node.set(sound)
        await it.allocatable(6)


@on_a_loop
async def test_a_chip_that_fails_between_list_and_allocate_is_refused(short_dir: Path) -> None:
    async with running(short_dir) as it:
        node = simulated("1xS4")
        daemon = it.start_plugin(node)
        await it.allocatable(1)
        version = daemon.monitor.state.version
        node.set(node.faults.with_fault(node.layout.chips[0].bus_id, "config"))
        await within(daemon.monitor.state.after(version))  # the kubelet may not have the list yet
        with pytest.raises(AdmissionError, match=r"unhealthy: config-unreadable|Available: 0"):
            await it.kubelet.admit("late", RESOURCE, 1)


@on_a_loop
async def test_a_restarted_kubelet_is_registered_with_again_and_pods_stay(
    short_dir: Path,
) -> None:
    async with running(short_dir) as it:
        it.start_plugin()
        await it.allocatable(6)
        pod = await it.kubelet.admit("pod", RESOURCE, 2)
        for _ in range(5):
            it.kubelet.kill()
            await it.kubelet.start()
            await it.allocatable(6)
        assert it.kubelet.pods == {"pod": pod}
        assert len(it.own_sockets) == 1


@on_a_loop
async def test_a_restart_is_seen_when_the_new_socket_has_the_old_inode(short_dir: Path) -> None:
    """The last file that was deleted is the first inode to be used again."""
    async with running(short_dir) as it:
        it.start_plugin()
        await it.allocatable(6)
        reused = 0
        for _ in range(20):
            before = it.kubelet.socket.stat().st_ino
            it.kubelet.kill()
            await it.kubelet.start()
            reused += it.kubelet.socket.stat().st_ino == before
            await it.allocatable(6)
        if not reused:
            pytest.skip("this file system never used an inode again")


@on_a_loop
async def test_a_kubelet_that_comes_late_even_its_directory(short_dir: Path) -> None:
    directory = short_dir / "a" / "b"
    async with running(directory, kubelet=False) as it:
        daemon = it.start_plugin()
        await within(daemon.plugin_manager.changed.after(0))
        assert not daemon.registered
        await it.kubelet.start()
        await it.allocatable(6)


@on_a_loop
async def test_a_kubelet_that_refuses_is_asked_again(
    short_dir: Path,
) -> None:
    async with running(short_dir, kubelet=False) as it:
        calls = asyncio.Queue[bytes]()

        def refuse(request: bytes) -> bytes:
            calls.put_nowait(request)
            raise StatusError(Code.UNKNOWN, "version v1beta1 is not supported")

        server = Server({"/v1beta1.Registration/Register": Unary(refuse)}, it.tasks)
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(server.protocol, str(short_dir / "kubelet.sock"))
        daemon = it.start_plugin(timeouts=RegistrationTimeouts(refused_retry=0.01))
        requests = [await within(calls.get(), "registration") for _ in range(3)]
        assert not daemon.registered
        # Kubelets from 1.37 on refuse a socket for good that they have not let go of.
        sockets = {pb.RegisterRequest.FromString(request).endpoint for request in requests}
        assert len(sockets) == 3
        listener.close()
        server.close()
        await it.kubelet.start()
        await it.allocatable(6)


@on_a_loop
async def test_a_kubelet_that_calls_no_list_and_watch_is_registered_with_again(
    short_dir: Path,
) -> None:
    async with running(short_dir, kubelet=False) as it:
        calls = asyncio.Queue[bytes]()

        def accept(request: bytes) -> bytes:
            calls.put_nowait(request)
            return b""

        server = Server({"/v1beta1.Registration/Register": Unary(accept)}, it.tasks)
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(server.protocol, str(short_dir / "kubelet.sock"))
        it.start_plugin(timeouts=RegistrationTimeouts(list_and_watch=0.05))
        for _ in range(3):
            await within(calls.get(), "registration")
        listener.close()
        server.close()


@pytest.mark.parametrize("behaviour", KUBELETS.values(), ids=KUBELETS)
def test_a_kubelet_that_hangs_up_at_once_is_not_stormed(
    short_dir: Path, behaviour: Behaviour
) -> None:
    async def run() -> None:
        async with running(short_dir) as it:
            it.kubelet.behaviour = behaviour
            daemon = it.start_plugin()
            await it.allocatable(6)
            plugin = daemon.plugin_manager.current[0].plugin
            service = plugin.service
            for time in range(8):
                # What the kubelet does when it is done with an endpoint.
                it.kubelet.disconnect(RESOURCE)
                await until(service.changed, lambda n=time + 2: service.started == n)  # type: ignore[misc]
                await it.allocatable(6)
            assert len(it.kubelet.registrations) == 9, "one registration for each time it hung up"
            assert service.ended == 8
            assert plugin.counters.registration_failures == 0
            assert len(it.own_sockets) == 1

    asyncio.run(run())


@on_a_loop
async def test_its_own_socket_is_recreated_when_somebody_deletes_it(short_dir: Path) -> None:
    async with running(short_dir) as it:
        daemon = it.start_plugin()
        await it.allocatable(6)
        (name,) = it.own_sockets
        os.unlink(short_dir / name)
        async with asyncio.timeout(10):
            while it.own_sockets != [name]:
                await daemon.directory.listing.after(daemon.directory.listing.version)
        it.kubelet.kill()
        await it.kubelet.start()
        await it.allocatable(6)


@on_a_loop
async def test_its_socket_is_for_its_owner_only(short_dir: Path) -> None:
    async with running(short_dir) as it:
        it.start_plugin()
        await it.allocatable(6)
        (name,) = it.own_sockets
        assert (short_dir / name).stat().st_mode & 0o777 == 0o600


@on_a_loop
async def test_the_socket_of_one_that_was_killed_is_cleared_away(short_dir: Path) -> None:
    async with running(short_dir) as it:
        stale = short_dir / new_socket_name(RESOURCE)
        other = short_dir / "nvidia-gpu.sock"
        for path in (stale, other):
            with socket.socket(socket.AF_UNIX) as left_behind:
                left_behind.bind(str(path))
        daemon = it.start_plugin()
        await it.allocatable(6)
        async with asyncio.timeout(10):
            while stale.exists():
                await daemon.directory.listing.after(daemon.directory.listing.version)
        assert other.exists(), "another vendor's socket is none of our business"


@pytest.mark.parametrize("behaviour", KUBELETS.values(), ids=KUBELETS)
@pytest.mark.parametrize("who_stays", ["the first", "the second"])
def test_of_two_instances_the_one_that_stays_is_registered(
    short_dir: Path, behaviour: Behaviour, who_stays: str
) -> None:
    async def run() -> None:
        async with running(short_dir) as it:
            it.kubelet.behaviour = behaviour
            first = it.start_plugin()
            await it.allocatable(6)
            second = it.start_plugin()
            await it.until(lambda: len(it.kubelet.registrations) == 2)
            await it.until(lambda: second.registered)
            leaves, stays = (first, second) if who_stays == "the second" else (second, first)
            counts: set[int] = set()
            it.kubelet.changed.listen(lambda: counts.add(it.kubelet.allocatable(RESOURCE)))
            await it.stop_plugin(leaves)
            await it.allocatable(6)
            await it.until(lambda: it.kubelet.listening(RESOURCE))
            assert stays.registered
            assert counts <= {6}, "the node never lost a device"
            node_keeps = await it.kubelet.admit("pod", RESOURCE, 2)
            assert len(node_keeps.device_ids) == 2
            it.kubelet.delete("pod")
            chip = stays.monitor.state.value.snapshot.devices[0].id
            it.kubelet.kill()
            await it.kubelet.start()
            await it.allocatable(6)
            assert chip in it.kubelet.healthy_ids(RESOURCE)

    asyncio.run(run())


@pytest.mark.parametrize("behaviour", KUBELETS.values(), ids=KUBELETS)
def test_an_instance_that_comes_and_goes_leaves_nothing_behind(
    short_dir: Path, behaviour: Behaviour
) -> None:
    """As a second DaemonSet does whose pods crash, perhaps for weeks."""

    async def run() -> None:
        async with running(short_dir) as it:
            it.kubelet.behaviour = behaviour
            stays = it.start_plugin()
            await it.allocatable(6)
            plugin = stays.plugin_manager.current[0].plugin
            counts: set[int] = set()
            it.kubelet.changed.listen(lambda: counts.add(it.kubelet.allocatable(RESOURCE)))
            for _ in range(6):
                other = it.start_plugin()
                await it.until(lambda: other.registered)  # noqa: B023
                after = plugin.counters.registrations + FOR_A_DEPARTURE[behaviour]
                await it.stop_plugin(other)
                await it.until(lambda: plugin.counters.registrations == after)  # noqa: B023
            await until(plugin.service.changed, lambda: plugin.service.streams <= 2)
            assert counts == {6}, "the node never lost a device"
            assert len(it.own_sockets) <= 2
            assert plugin.counters.registration_failures == 0

    asyncio.run(run())


@on_a_loop
async def test_the_kubelet_has_no_client_to_hang_up_on_while_an_instance_ends(
    short_dir: Path,
) -> None:
    async with running(short_dir) as it:
        it.kubelet.behaviour = UNTIL_1_36
        leaves = it.start_plugin()
        await it.allocatable(6)
        stays = it.start_plugin()
        await it.until(lambda: stays.registered)
        before = len(it.kubelet.registrations)
        await it.stop_plugin(leaves)
        await it.until(lambda: len(it.kubelet.registrations) == before + 3)
        (refused,) = it.kubelet.dial_failures
        assert "this is no error" in refused, "whoever reads the kubelet's log knows"
        assert it.kubelet.registrations[before + 1].endpoint in refused
        plugin = stays.plugin_manager.current[0].plugin
        assert plugin.counters.registration_failures == 0
        await it.until(lambda: it.kubelet.listening(RESOURCE))
        await it.stop_plugin(stays)
        await it.allocatable(0)


@on_a_loop
async def test_an_end_between_two_registrations_is_noticed(short_dir: Path) -> None:
    """While the kubelet has no client, it would not notice the end of the last instance."""
    async with running(short_dir) as it:
        it.kubelet.behaviour = UNTIL_1_36
        timeouts = RegistrationTimeouts(settle=3600.0)
        leaves = it.start_plugin()
        await it.allocatable(6)
        stays = it.start_plugin(timeouts=timeouts)
        await it.until(lambda: stays.registered)
        await it.stop_plugin(leaves)
        await it.until(lambda: len(it.kubelet.dial_failures) == 1)
        assert it.kubelet.allocatable(RESOURCE) == 6
        await it.stop_plugin(stays)
        await it.allocatable(0)
        assert it.own_sockets == []


@on_a_loop
async def test_a_kubelet_that_accepts_what_was_made_to_be_refused(short_dir: Path) -> None:
    """As one up to 1.24 would, which takes the options from the registration itself."""
    async with running(short_dir) as it:
        it.kubelet.behaviour = UNTIL_1_36
        leaves = it.start_plugin()
        await it.allocatable(6)
        stays = it.start_plugin()
        await it.until(lambda: stays.registered)
        it.kubelet.behaviour = DEFAULT
        counts: set[int] = set()
        it.kubelet.changed.listen(lambda: counts.add(it.kubelet.allocatable(RESOURCE)))
        await it.stop_plugin(leaves)
        await it.until(lambda: it.kubelet.listening(RESOURCE))
        assert counts == {6}
        assert not it.kubelet.dial_failures
        assert len((await it.kubelet.admit("pod", RESOURCE, 2)).device_ids) == 2


@on_a_loop
async def test_a_node_without_devices_registers_when_one_appears(short_dir: Path) -> None:
    async with running(short_dir) as it:
        node = simulated("1xS4")
        chip = node.layout.chips[0].bus_id
        node.set(node.faults.with_fault(chip, "gone"))
        daemon = it.start_plugin(node)
        async with asyncio.timeout(10):
            while not daemon.monitor.state.value.settled:
                await daemon.monitor.state.after(daemon.monitor.state.version)
        assert it.kubelet.registrations == []
        assert it.own_sockets == []
        node.set(node.faults.rebooted(chip))
        await it.allocatable(1)


@on_a_loop
async def test_the_end_is_quick_and_leaves_nothing(short_dir: Path) -> None:
    async with running(short_dir) as it:
        daemon = it.start_plugin()
        await it.allocatable(6)
        before = asyncio.all_tasks()
        async with asyncio.timeout(1):
            await it.stop_plugin(daemon)
        await it.allocatable(0)
        assert it.own_sockets == []
        assert len(asyncio.all_tasks()) < len(before)


@on_a_loop
async def test_a_monitor_reaches_every_device_and_takes_none_from_pods(short_dir: Path) -> None:
    monitoring = Monitoring(units=1)
    async with running(short_dir) as it:
        it.start_plugin(simulated(), plugin_config=PluginConfig(monitoring=monitoring))
        await it.allocatable(6)
        await within(it.kubelet.until_allocatable(monitoring.name, 1))
        monitor = await it.kubelet.admit("monitor", monitoring.name, 1)
        paths = [device.container_path for device in monitor.response.devices]
        assert paths == [f"/dev/spu-sim{number}" for number in range(6)]
        assert len((await it.kubelet.admit("all", RESOURCE, 6)).device_ids) == 6
        with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
            await it.kubelet.admit("tenant", monitoring.name, 1)
