"""What changes, or is away, while the daemon starts."""

from __future__ import annotations

from pathlib import Path

from moffett_device_plugin.commands.line import build_parser
from moffett_device_plugin.settings.load import read
from moffett_device_plugin.settings.options import Values
from moffett_device_plugin.settings.reload import ConfigFile
from moffett_device_plugin.settings.sections import NodeFacts
from tests.support.podresources import PodResources
from tests.support.running import on_a_loop, running, simulated, until, within


@on_a_loop
async def test_a_change_since_the_settings_were_read_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: v1\nresources: [{granularity: device}]\n")
    acted_on = read(path)
    path.write_text("version: v1\nresources: [{granularity: card}]\n")
    values = Values(build_parser().parse_args(["serve"]), {})
    changes = ConfigFile(acted_on, values, NodeFacts()).changes()
    settings = await within(anext(changes))
    await changes.aclose()
    assert [str(one) for one in settings.plugin_config.resources] == ["moffett.ai/spu-card"]


@on_a_loop
async def test_a_kubelet_that_was_away_is_asked_at_once_who_holds_what(short_dir: Path) -> None:
    node = simulated()
    held = node.layout.chips[0].bus_id
    socket = short_dir / "pods.sock"
    pods = PodResources(pods={"ml/training/main": {"moffett.ai/other": [[held]]}})
    async with running(short_dir / "dp", kubelet=False) as it:
        daemon = it.start_plugin(node, pod_resources=socket)
        state = daemon.monitor.state
        await until(state, lambda: state.value.settled)  # by then it has asked, in vain
        async with pods.serving(socket):
            await it.kubelet.start()
            await it.allocatable(5)
        assert held not in it.kubelet.healthy_ids("moffett.ai/spu")
