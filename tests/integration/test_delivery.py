"""How a container gets its devices: every strategy, through the kubelet's own calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.fake_kubelet.kubelet import AdmissionError, Pod
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import StatusError
from moffett_device_plugin.hardware.simulated import SimulatedNode
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.hardware.types import Mount
from moffett_device_plugin.resources.device_list_strategy import DeviceListStrategy, Strategy
from moffett_device_plugin.resources.plugin_config import PluginConfig, PluginOptions
from moffett_device_plugin.resources.pools import Resource, Sharing
from moffett_device_plugin.resources.selector import Selector

from ..support.running import RESOURCE, Running, on_a_loop, running, simulated, until

FIRST_CARD = [f"moffett.ai/spu=0000:{bus}:00.0" for bus in ("36", "37")]


def by(*strategies: Strategy) -> PluginConfig:
    return PluginConfig(device_list_strategy=DeviceListStrategy(frozenset(strategies)))


async def pod_of_two(it: Running, tmp_path: Path, plugin_config: PluginConfig) -> Pod:
    it.start_plugin(plugin_config=plugin_config, cdi_dir=tmp_path / "cdi")
    await it.allocatable(6)
    return await it.kubelet.admit("inference", RESOURCE, 2)


@on_a_loop
async def test_device_specs_alone_need_no_cdi(short_dir: Path, tmp_path: Path) -> None:
    async with running(short_dir) as it:
        answer = (await pod_of_two(it, tmp_path, by("device-specs"))).response
        assert [device.container_path for device in answer.devices] == [
            "/dev/spu-sim0",
            "/dev/spu-sim1",
        ]
        assert not answer.cdi_devices
        assert not answer.annotations
        assert not (tmp_path / "cdi").exists()


@on_a_loop
async def test_cdi_names_are_known_to_engines_before_they_are_given(
    short_dir: Path, tmp_path: Path
) -> None:
    async with running(short_dir) as it:
        answer = (await pod_of_two(it, tmp_path, by("cdi-cri"))).response
        assert [device.name for device in answer.cdi_devices] == FIRST_CARD
        assert not answer.devices
        spec = json.loads((tmp_path / "cdi" / "moffett.ai-spu.json").read_text())
        names = {f"{spec['kind']}={device['name']}" for device in spec["devices"]}
        assert set(FIRST_CARD) <= names


@on_a_loop
async def test_several_strategies_at_once(short_dir: Path, tmp_path: Path) -> None:
    async with running(short_dir) as it:
        plugin_config = by("cdi-annotations", "device-specs", "envvar")
        answer = (await pod_of_two(it, tmp_path, plugin_config)).response
        (value,) = answer.annotations.values()
        assert value.split(",") == FIRST_CARD
        assert len(answer.devices) == 2
        assert answer.envs["MOFFETT_SPU_INDEXES"] == "0,1"


@on_a_loop
async def test_two_resources_of_one_container_have_annotations_that_do_not_collide(
    short_dir: Path, tmp_path: Path
) -> None:

    here = Selector(numa_nodes=frozenset({"0"}))
    cards = Resource("moffett.ai/spu-card", granularity="card", exclude=here)
    plugin_config = PluginConfig(
        (Resource(select=here), cards), DeviceListStrategy(frozenset({"cdi-annotations"}))
    )
    async with running(short_dir) as it:
        it.start_plugin(plugin_config=plugin_config, cdi_dir=tmp_path / "cdi")
        await it.until(lambda: len(it.kubelet.resources()) == 2)
        await it.allocatable(3)
        await it.until(lambda: it.kubelet.allocatable("moffett.ai/spu-card") == 1)
        chip = await it.kubelet.admit("one", RESOURCE, 1)
        card = await it.kubelet.admit("two", "moffett.ai/spu-card", 1)
        assert not chip.response.annotations.keys() & card.response.annotations.keys()
        (value,) = card.response.annotations.values()
        assert value.count("moffett.ai/spu=") == 3


@on_a_loop
async def test_envvar_alone_gives_names_and_nothing_else(short_dir: Path, tmp_path: Path) -> None:
    async with running(short_dir) as it:
        answer = (await pod_of_two(it, tmp_path, by("envvar"))).response
        assert answer.envs["MOFFETT_SPU_BUS_IDS"] == "0000:36:00.0,0000:37:00.0"
        assert not answer.devices
        assert not answer.cdi_devices


# -- SOLA -------------------------------------------------------------------------------


class WithSola(SimulatedNode):
    mounts: tuple[Mount, ...] | None = (Mount("/usr/local/sola-3.5.3", "/usr/local/sola"),)

    def sola_mounts(self) -> tuple[Mount, ...] | None:
        return self.mounts


@on_a_loop
async def test_the_hosts_sola_comes_read_only_or_the_pod_is_told(
    short_dir: Path, tmp_path: Path
) -> None:
    node = WithSola(simulated().layout)
    plugin_config = PluginConfig(device_list_strategy=DeviceListStrategy(inject_sola=True))
    async with running(short_dir) as it:
        it.start_plugin(node, plugin_config=plugin_config)
        await it.allocatable(6)
        pod = await it.kubelet.admit("a", RESOURCE, 1)
        (mount,) = pod.response.mounts
        assert (mount.host_path, mount.container_path, mount.read_only) == (
            "/usr/local/sola-3.5.3", "/usr/local/sola", True,
        )  # fmt: skip
        node.mounts = None
        with pytest.raises(AdmissionError, match="no /usr/local/sola that the plugin can see"):
            await it.kubelet.admit("b", RESOURCE, 1)


def test_sola_is_found_behind_its_link_by_both_names(tmp_path: Path) -> None:
    host = SysfsHardware(tmp_path)
    assert host.sola_mounts() is None
    installed = tmp_path / "usr/local/sola-3.5.3"
    installed.mkdir(parents=True)
    link = tmp_path / "usr/local/sola"
    link.symlink_to("/usr/local/sola-3.5.3")
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/mx-smi").touch()
    (tmp_path / "usr/bin/mx-daemon").touch()
    assert host.sola_mounts() == (
        Mount("/usr/local/sola-3.5.3", "/usr/local/sola"),
        Mount("/usr/local/sola-3.5.3", "/usr/local/sola-3.5.3"),
        Mount("/usr/bin/mx-smi", "/usr/bin/mx-smi"),
    )
    link.unlink()
    link.symlink_to("sola-3.6.0")
    assert host.sola_mounts() is None, "the link leads nowhere"
    link.unlink()
    link.mkdir()
    assert host.sola_mounts() == (
        Mount("/usr/local/sola", "/usr/local/sola"),
        Mount("/usr/bin/mx-smi", "/usr/bin/mx-smi"),
    )


# -- the last look ----------------------------------------------------------------------


async def pre_start(it: Running, pod: Pod) -> None:
    """What a kubelet calls before each start of a container."""
    socket = it.kubelet.endpoint(RESOURCE)
    assert socket is not None
    request = pb.PreStartContainerRequest(devices_ids=pod.device_ids)
    async with await Channel.connect(socket) as channel:
        await channel.unary(api.PRE_START_CONTAINER, request.SerializeToString(), 5.0)


@on_a_loop
async def test_a_container_does_not_start_on_a_device_that_has_just_gone(short_dir: Path) -> None:
    node = simulated()
    async with running(short_dir) as it:
        it.start_plugin(node, plugin_config=PluginConfig(options=PluginOptions(pre_start=True)))
        await it.allocatable(6)
        pod = await it.kubelet.admit("a", RESOURCE, 1)
        (device,) = pod.device_ids
        await pre_start(it, pod)
        node.faults = node.faults.with_fault(device, "gone")  # and no event tells of it
        with pytest.raises(StatusError, match=f"device {device} is unhealthy: bus-gone"):
            await pre_start(it, pod)
        await it.allocatable(5)
        node.set(Faults())
        await it.allocatable(6)
        await pre_start(it, pod)


# -- sharing ----------------------------------------------------------------------------


@on_a_loop
async def test_pods_share_chips_the_least_used_first(short_dir: Path) -> None:
    name = "moffett.ai/spu.shared"
    plugin_config = PluginConfig((Resource(name, sharing=Sharing(2, max_per_pod=6)),))
    async with running(short_dir) as it:
        it.start_plugin(plugin_config=plugin_config)
        await it.until(lambda: it.kubelet.allocatable(name) == 12)
        first = await it.kubelet.admit("a", name, 6)
        assert len(set(first.response.envs["MOFFETT_SPU_IDS"].split(","))) == 6
        second = await it.kubelet.admit("b", name, 1)
        third = await it.kubelet.admit("c", name, 1)
        chips = {pod.response.envs["MOFFETT_SPU_IDS"] for pod in (second, third)}
        assert len(chips) == 2
        with pytest.raises(AdmissionError, match="maxPerPod is 6"):
            it.kubelet.delete("a")
            await it.kubelet.admit("d", name, 7)


@on_a_loop
async def test_nothing_is_offered_under_names_that_engines_cannot_know(
    short_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "cdi").touch()  # a file where the directory should be
    async with running(short_dir) as it:
        daemon = it.start_plugin(plugin_config=by("cdi-cri"), cdi_dir=tmp_path / "cdi")
        state = daemon.monitor.state
        await until(state, lambda: state.value.settled)
        assert daemon.plugin_manager.current == ()
        (tmp_path / "cdi").unlink()
        daemon.plugin_manager.change_plugin_config(daemon.plugin_manager.plugin_config)
        await it.allocatable(6)
