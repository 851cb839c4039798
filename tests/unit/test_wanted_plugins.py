"""Which plugins a node calls for, from its state, its configuration and what pods hold."""

from __future__ import annotations

from dataclasses import replace

from moffett_device_plugin.deviceplugin.manager import Inputs, WantedPlugins, wanted_plugins
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.resources.plugin_config import PluginConfig
from moffett_device_plugin.resources.pools import Resource
from moffett_device_plugin.resources.selector import Selector
from tests.support.values import ids_of, state_of

STATE = state_of("2xS30")
A0 = ids_of("2xS30")[0]
CARDS = PluginConfig((Resource("moffett.ai/spu-card", granularity="card"),))


def names(wanted: WantedPlugins) -> list[str]:
    return [pool.name for pool in wanted.pools]


def test_nothing_before_the_state_is_settled() -> None:
    unsettled = replace(STATE, settled=False)
    assert wanted_plugins(Inputs(unsettled)) == WantedPlugins()
    assert names(wanted_plugins(Inputs(STATE))) == ["moffett.ai/spu"]


def test_what_may_not_start_does_not_and_what_runs_goes_on() -> None:
    both = PluginConfig(
        (
            Resource(select=Selector(numa_nodes=frozenset({"0"}))),
            Resource("moffett.ai/spu-b", select=Selector(numa_nodes=frozenset({"1"}))),
        )
    )
    inputs = Inputs(STATE, both, may_start=False)
    assert names(wanted_plugins(inputs)) == []
    assert names(wanted_plugins(inputs, ["moffett.ai/spu-b"])) == ["moffett.ai/spu-b"]


def test_what_a_pod_holds_under_another_name_is_marked() -> None:
    held = {"moffett.ai/spu": {A0: (Holder("ml", "train", "main"),)}}
    (cards,) = wanted_plugins(Inputs(STATE, CARDS, held)).pools
    assert [card.healthy for card in cards.devices] == [False, True]
    assert f"{A0} is held by pod ml/train as moffett.ai/spu" in cards.devices[0].held


def test_a_name_that_is_no_longer_configured_is_not_wanted() -> None:
    assert names(wanted_plugins(Inputs(STATE, CARDS), ["moffett.ai/spu"])) == [
        "moffett.ai/spu-card"
    ]
    assert (
        wanted_plugins(Inputs(NodeState(settled=True), CARDS), ["moffett.ai/spu-card"]).pools == ()
    )
