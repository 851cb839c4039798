"""What is fuzzed: functions of bytes that return for every input, or show a bug.

A target does with its input what the daemon does, and accepts only the errors that the
code documents. Any other is a bug. Property tests, the coverage-guided fuzzer and the
replay of the corpus all call these.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import cache
from inspect import isawaitable
from pathlib import Path
from typing import Any

from moffett_device_plugin import api
from moffett_device_plugin.allocation.allocator import PoolAllocator
from moffett_device_plugin.deviceplugin.service import DevicePluginService, response_of
from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import Snapshot, observe_bus, observe_smi
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.grpc.client import Channel
from moffett_device_plugin.grpc.messages import StatusError
from moffett_device_plugin.grpc.server import Server
from moffett_device_plugin.hardware.mxsmi import GarbageError, parse_select
from moffett_device_plugin.hardware.pci import sysfs_bus_id
from moffett_device_plugin.hardware.simulation import Faults, build, bus_scan, parse_spec
from moffett_device_plugin.resources.plugin_config import PluginSpec
from moffett_device_plugin.resources.pools import build_pools
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.runtime.log import text_value
from moffett_device_plugin.runtime.watchable import Watchable
from moffett_device_plugin.settings.load import parse_configuration
from moffett_device_plugin.settings.options import FILE_OPTIONS, RESOURCE_OPTIONS, Values
from moffett_device_plugin.settings.sections import NodeFacts

Target = Callable[[bytes], None]

METHODS = (
    api.GET_OPTIONS,
    api.LIST_AND_WATCH,
    api.GET_PREFERRED_ALLOCATION,
    api.ALLOCATE,
    api.PRE_START_CONTAINER,
)
#: The longest text that anything from the hardware may become.
MAX_TEXT = 128


# -- mx-smi ---------------------------------------------------------------------------------


def mxsmi(data: bytes) -> None:
    """Output of mx-smi, up to the list that the kubelet gets because of it."""
    try:
        report = parse_select(data.decode(errors="replace"))
    except GarbageError as error:
        assert len(str(error)) < 500
        return
    for device in report.devices:
        assert sysfs_bus_id(device.bus_id) == device.bus_id
        for text in (device.serial, device.uuid, device.board, device.product):
            assert text is None or (len(text) <= MAX_TEXT and text.isprintable())
            assert "\n" not in text_value(text)
    state = _state()
    seen = observe_smi(state.snapshot, report, state.snapshot.scan)
    evaluation = evaluate(seen, {}, HealthPolicy(), 0.0)
    now = NodeState(seen, evaluation.health_statuses, settled=True)
    assert {device.id for device in seen.devices} >= set(_ids())
    for pool in build_pools(now)[0]:
        response_of(pool.advertised())


# -- gRPC -----------------------------------------------------------------------------------


def messages(data: bytes) -> None:
    """A request of any of the calls: the first byte says which."""
    service = _service()
    method = service.methods()[METHODS[data[0] % len(METHODS)] if data else METHODS[0]]

    async def call() -> None:
        answer: Any = method.answer(data[1:])
        if isawaitable(answer):
            await answer
        elif hasattr(answer, "__aiter__"):
            async for _ in answer:
                break
            await answer.aclose()

    try:
        _run(call())
    except StatusError as error:
        assert error.text


def server(data: bytes) -> None:
    """What a client sends to the plugin's socket, in pieces: each begins with its length."""

    async def talk() -> None:
        async with asyncio.TaskGroup() as tasks:
            protocol: Any = Server(_service().methods(), tasks).protocol()
            _converse(protocol, data, tasks)
            for _ in range(3):  # the tasks of the calls run
                await asyncio.sleep(0)
            protocol.connection_lost(None)

    with _no_errors():
        _run(talk())


def client(data: bytes) -> None:
    """What a kubelet answers to the registration."""

    async def talk() -> None:
        channel = Channel("localhost")
        transport = Transport(channel)
        channel.connection_made(transport)  # type: ignore[arg-type]
        call = asyncio.ensure_future(channel.unary(api.REGISTER, b"\x0a\x07v1beta1", 60))
        await asyncio.sleep(0)
        for piece in pieces(data):
            if not transport.closed:
                channel.data_received(piece)
            await asyncio.sleep(0)
        channel.connection_lost(None)
        try:
            await call
        except StatusError as error:
            assert str(error)

    with _no_errors():
        _run(talk())


class Transport:
    """Accepts what is written, and sends nothing."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.closed = False
        self.written = 0

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += len(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def pieces(data: bytes) -> list[bytes]:
    """A length of one byte (0 for all that is left) before each piece."""
    found = []
    while data:
        length = data[0] or len(data)
        found.append(data[1 : 1 + length])
        data = data[1 + length :]
    return found


def _converse(protocol: Any, data: bytes, tasks: asyncio.TaskGroup) -> None:
    transport = Transport(protocol)
    protocol.connection_made(transport)
    for piece in pieces(data):
        if transport.closed:
            break
        protocol.data_received(piece)
    # An answer is not much larger than its request: a list, a response, or an error text.
    assert transport.written < 10_000 + 600 * len(data)


# -- settings ---------------------------------------------------------------------------------

OPTIONS = RESOURCE_OPTIONS + FILE_OPTIONS


def settings(data: bytes) -> None:
    """A setting's text: the first byte says which one."""
    if not data:
        return
    option = OPTIONS[data[0] % len(OPTIONS)]
    text = data[1:].decode(errors="replace")
    try:
        option.parse(option.flag, text)
    except ConfigurationError as error:
        _one_line(error)


def config(data: bytes) -> None:
    """A configuration file, for a node with a name and labels."""
    values = Values(argparse.Namespace(), {}, here=False)
    node = NodeFacts("node-1", {"zone": "a"})
    try:
        parse_configuration(Path("/config.yaml"), data.decode(errors="replace")).settings(
            values, node
        )
    except ConfigurationError as error:
        _one_line(error)


def control(data: bytes) -> None:
    """The file by which `simulate` injects faults."""
    try:
        faults = Faults.from_json(data.decode(errors="replace"))
    except ValueError:
        return
    bus_scan(_layout(), faults)


def _one_line(error: ConfigurationError) -> None:
    assert len(str(error).splitlines()) == 1, repr(str(error))
    assert "is not valid" in str(error)


TARGETS: Mapping[str, Target] = {
    "mxsmi": mxsmi,
    "messages": messages,
    "server": server,
    "client": client,
    "settings": settings,
    "config": config,
    "control": control,
}

# -- a node for the targets ------------------------------------------------------------------------


@cache
def _layout() -> Any:
    return build(parse_spec("1xS30,1xS4"))


@cache
def _state() -> NodeState:
    snapshot = observe_bus(Snapshot(), bus_scan(_layout(), Faults()))
    return NodeState(
        snapshot, evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses, settled=True
    )


@cache
def _ids() -> tuple[str, ...]:
    return tuple(device.id for device in _state().snapshot.devices)


def _service() -> DevicePluginService:
    (pool,) = build_pools(_state())[0]
    allocator = PoolAllocator(Watchable(_state()), lambda: pool)
    return DevicePluginService(Watchable(PluginSpec(pool, pool.advertised())), allocator)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _run(work: Any) -> None:
    _loop().run_until_complete(work)


class _no_errors(logging.Handler):  # noqa: N801  (read as a statement)
    """Nothing may be logged as an error: unexpected exceptions are."""

    def __enter__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self.setLevel(logging.ERROR)
        logging.getLogger("moffett_device_plugin").addHandler(self)

    def __exit__(self, type: object, *_: object) -> None:
        logging.getLogger("moffett_device_plugin").removeHandler(self)
        if self.records and type is None:
            error = self.records[0].exc_info
            raise AssertionError(self.records[0].getMessage()) from (error[1] if error else None)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
