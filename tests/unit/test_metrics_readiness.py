"""When the daemon counts as alive, as ready, and what it listens on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.metrics.address import Address, parse_address
from moffett_device_plugin.metrics.heartbeat import Heartbeats
from moffett_device_plugin.metrics.readiness import unready
from moffett_device_plugin.metrics.view import View
from moffett_device_plugin.resources.pools import Resource, build_pools
from moffett_device_plugin.runtime.counters import Counters
from moffett_device_plugin.runtime.errors import ConfigurationError
from tests.support.values import state_of

BOTH = tuple(Resource(f"moffett.ai/{name}") for name in ("a", "b"))


def test_a_loop_that_stops_is_named_and_forgiven_when_it_turns_again() -> None:
    now = 100.0
    registers = Heartbeats({"bus": 10.0, "mx-smi": 30.0}, clock=lambda: now)
    now = 110.0
    assert registers.stalled() is None
    registers.heartbeat("mx-smi")
    now = 125.0
    assert registers.stalled() == "bus: last heartbeat 25 s ago, limit 10 s"
    now = 150.0
    assert "mx-smi: last heartbeat 40 s ago" in str(registers.stalled())
    registers.heartbeat("bus")
    registers.heartbeat("mx-smi")
    assert registers.stalled() is None


def test_ready_is_when_the_kubelet_has_every_resource() -> None:
    state = state_of("1xS30")
    pools = tuple(build_pools(state, (r,))[0][0] for r in BOTH)
    view = View(state, Counters(), 0.0, 0.0, pools, (), {"moffett.ai/a": True})
    assert unready(view) == "not registered with the kubelet: moffett.ai/b"
    assert unready(replace(view, registered={"moffett.ai/a": True, "moffett.ai/b": True})) is None
    assert unready(replace(view, state=replace(state, settled=False))) is not None


def test_a_node_without_devices_is_ready_once_it_was_looked_at() -> None:
    view = View(NodeState(settled=True), Counters(), 0.0, 0.0)
    assert unready(view) is None
    assert unready(replace(view, state=NodeState())) is not None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        (":9400", Address("", 9400)),
        ("0.0.0.0:9400", Address("0.0.0.0", 9400)),
        ("localhost:1", Address("127.0.0.1", 1)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_where_to_listen(text: str, address: Address | None) -> None:
    assert parse_address(text) == address
    if address is not None and "localhost" not in text:
        assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "9400", "host", "host:9400", "127.0.0.1", "127.0.0.1:", ":0", ":65536", ":-1", ":x", ":٣",
        "::1:9400", "[127.0.0.1]:9400", "[]:9400", "[::1]", "1.2.3:80", "1.2.3.4\0:80",
    ],
)  # fmt: skip
def test_a_wrong_address_is_one_line_that_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--metrics-address: .*:9400") as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)
