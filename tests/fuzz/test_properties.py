"""The fuzzer's targets under inputs that are made to look right, in bounded time."""

from __future__ import annotations

import gc
import json

from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.devices.health.policy import LIMITS
from moffett_device_plugin.hardware.mxsmi import ALL_FIELDS, parse_select
from moffett_device_plugin.settings.tree import ROOT, Branch, Items, Node
from tests.fuzz import targets
from tests.support import http2
from tests.support.http2 import frame

#: A machine that is busy is no failure.
UNHURRIED = limits(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)

# -- mx-smi -------------------------------------------------------------------------------------

bus_ids = st.sampled_from(
    ["0:36:00.0", "36:00.0", "0000:37:00.0", "0:36:00.8", "x", "", "0:3a:20.0"]
)
cells = st.one_of(
    st.sampled_from(
        ["43 C", "0", "-1", "20480 MiB", "N/A", "1e999", "9" * 400, "٣", "1 GiB", "nan"]
    ),
    st.text(max_size=20),
    st.integers(-(10**30), 10**30).map(str),
)
columns = st.lists(
    st.sampled_from([*ALL_FIELDS, "memory.total [MiB]", "surprise", ""]), max_size=12
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    names = ["pci.bus_id", *draw(columns)]
    lines = [draw(st.text(max_size=20)), ", ".join(names)]
    for _ in range(draw(st.integers(0, 5))):
        row = [draw(bus_ids), *(draw(cells) for _ in names[1:])]
        lines.append(
            ", ".join(row[: draw(st.integers(0, len(row)))] if draw(st.booleans()) else row)
        )
    return draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines)


@UNHURRIED
@given(tables())
def test_mx_smi_may_print_any_table(text: str) -> None:
    targets.mxsmi(text.encode(errors="replace"))


@UNHURRIED
@given(tables(), st.integers(0, 400))
def test_a_table_that_is_cut_short_loses_rows_and_adds_none(text: str, at: int) -> None:
    try:
        whole = {device.bus_id for device in parse_select(text).devices}
        part = {device.bus_id for device in parse_select(text[:at]).devices}
    except Exception:  # what may be raised, the test before says
        return
    last = text[:at].rsplit("\n", 1)[-1]
    assert part <= whole or last.strip()  # only a row that was cut itself can differ


# -- gRPC ----------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(["0000:33:00.0", "0000:34:00.0", "0000:b3:00.0", "no-such", ""]),
    st.text(max_size=8),
)
id_lists = st.lists(names, max_size=6)
sizes = st.sampled_from([-(2**31), -1, 0, 1, 2, 3, 4, 5, 2**31 - 1])
preferences = st.builds(
    lambda available, must_include, size: pb.ContainerPreferredAllocationRequest(
        available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
    ),
    id_lists,
    id_lists,
    sizes,
)
requests = st.one_of(
    st.lists(preferences, max_size=3).map(
        lambda items: (
            b"\x02" + pb.PreferredAllocationRequest(container_requests=items).SerializeToString()
        )
    ),
    st.lists(id_lists, max_size=3).map(
        lambda items: (
            b"\x03"
            + pb.AllocateRequest(
                container_requests=[pb.ContainerAllocateRequest(devices_ids=ids) for ids in items]
            ).SerializeToString()
        )
    ),
    id_lists.map(
        lambda ids: b"\x04" + pb.PreStartContainerRequest(devices_ids=ids).SerializeToString()
    ),
)


@UNHURRIED
@given(st.one_of(requests, st.binary(max_size=60)))
def test_a_call_is_answered_or_refused_whatever_it_asks(data: bytes) -> None:
    targets.messages(data)


bodies = st.one_of(
    requests.map(lambda data: b"\0" + (len(data) - 1).to_bytes(4, "big") + data[1:]),
    st.binary(max_size=30),
)
paths = st.sampled_from([*targets.METHODS, "/x", ""])
changes = st.dictionaries(
    st.sampled_from([":method", "content-type", ":path", "te"]),
    st.one_of(st.none(), st.text(max_size=10)),
    max_size=1,
)
stream_ids = st.integers(0, 40).map(lambda number: 2 * number + 1)
exchanges = st.one_of(
    st.builds(http2.call, stream_ids, paths, bodies, changes),
    st.builds(http2.reset, stream_ids),
    st.builds(http2.window, stream_ids, st.sampled_from([0, 1, 2**31 - 1])),
    st.builds(frame, st.just(http2.DATA), st.sampled_from([0, 1]), stream_ids, bodies),
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 65_535])), max_size=2).map(
        lambda pairs: http2.settings(*pairs)
    ),
)


@UNHURRIED
@given(st.lists(exchanges, max_size=12), st.integers(0, 255))
def test_the_server_takes_calls_in_any_order_and_any_pieces(parts: list[bytes], at: int) -> None:
    data = http2.PREFACE + http2.settings() + b"".join(parts)
    size = at or len(data)
    cut = [data[start : start + size] for start in range(0, len(data), size)]
    targets.server(b"".join(bytes((len(piece) % 256,)) + piece for piece in cut))


def test_a_call_that_is_cancelled_before_it_starts_leaves_nothing_behind() -> None:
    """No coroutine that was never awaited: Python prints that beside the log."""
    call = http2.call(1, api.PRE_START_CONTAINER, b"\0\0\0\0\0", {})
    begin = http2.PREFACE + http2.settings()
    pieces = (begin, call, http2.reset(1))
    targets.server(b"".join(bytes((len(piece),)) + piece for piece in pieces))
    gc.collect()


answers = st.one_of(
    st.builds(
        http2.headers,
        st.just(1),
        st.dictionaries(
            st.sampled_from([":status", "grpc-status", "grpc-message", "content-type"]),
            st.one_of(
                st.sampled_from(["200", "0", "13", "99999", "x", "%E2%82", "%"]),
                st.text(max_size=9),
            ),
            max_size=4,
        ),
    ),
    st.builds(
        frame, st.just(http2.DATA), st.sampled_from([0, 1, 8]), st.sampled_from([1, 3]), bodies
    ),
    st.builds(http2.reset, st.just(1)),
    st.just(frame(http2.GOAWAY, payload=bytes(8))),
)


@UNHURRIED
@given(st.lists(answers, max_size=8))
def test_a_kubelet_may_answer_a_registration_with_anything(parts: list[bytes]) -> None:
    data = http2.settings() + b"".join(parts)
    targets.client(b"\0" + data)


# -- settings --------------------------------------------------------------------------------------

values = st.sampled_from(
    ["on", "off", "", "1", "90/80", "80/90", "nan", "inf", "-1", "1e400", "٣", "1//2"]
)
rules = st.lists(
    st.one_of(
        st.builds(lambda rule, value: f"{rule}={value}", st.sampled_from([*LIMITS, "x"]), values),
        st.text(max_size=12),
    ),
    max_size=4,
).map(",".join)


@UNHURRIED
@given(st.integers(0, len(targets.OPTIONS) - 1), st.one_of(rules, values, st.text(max_size=40)))
def test_a_setting_is_a_value_or_one_line_of_error(number: int, text: str) -> None:
    targets.settings(bytes((number,)) + text.encode(errors="replace"))


scalars = st.one_of(
    values,
    st.sampled_from(
        [
            "v1",
            "moffett.ai/spu",
            "8xS30",
            "compact",
            "&a",
            "*a",
            "!!int 3",
            "0x1f",
            "2024-01-01",
            "~",
        ]
    ),
    st.text(max_size=10),
    st.integers(),
    st.booleans(),
    st.none(),
)


def keys_of(node: Node) -> set[str]:
    """Every key that a configuration file may have anywhere."""
    if isinstance(node, Items):
        return keys_of(node.each)
    if isinstance(node, Branch):
        return set(node.keys).union(*(keys_of(below) for below in node.keys.values()))
    return set()


KEYS = [*sorted(keys_of(ROOT)), *LIMITS, "<<"]
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=6))
trees = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(keys, below, max_size=4)),
    max_leaves=12,
)


@UNHURRIED
@given(st.dictionaries(keys, trees, max_size=5), st.booleans())
def test_a_configuration_is_settings_or_one_line_of_error(tree: object, versioned: bool) -> None:
    head = {"version": "v1"} if versioned else {}
    text = json.dumps({**head, **tree} if isinstance(tree, dict) else tree)  # JSON is YAML
    targets.config(text.encode())


@UNHURRIED
@given(st.text(alphabet="abv1: -\n\t[]{}&*!|>'\"#%@,?~<=\\\u2028\x85", max_size=60))
def test_a_configuration_may_be_any_text(text: str) -> None:
    targets.config(text.encode(errors="replace"))
