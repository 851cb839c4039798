"""The DRA driver's socket, called by the reference implementation of gRPC with messages that
it built itself, as a kubelet calls it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from moffett_device_plugin import api
from moffett_device_plugin.dra.names import DRIVER, device_name
from tests.support.apiserver import NODE
from tests.support.claims import reference, result
from tests.support.dra import dra_node
from tests.support.running import on_a_loop, within
from tests.support.values import ids_of

A, B = ids_of("2xS30")[:2]
TRAIN = reference()

_TEXT, _MESSAGE = (
    descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
)


def messages(package: str, *, share_id: bool) -> dict[str, Any]:
    """The kubelet's messages of one version, from the numbers in Kubernetes' definition and
    not from ours."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )

    def add(name: str, *fields: tuple[str, int, str, bool]) -> None:
        made = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            made.field.add(
                name=field,
                number=number,
                label=3 if repeated else 1,
                type=_MESSAGE if kind else _TEXT,
                type_name=f".{package}.{kind}" if kind else None,
            )

    add("Claim", ("namespace", 1, "", False), ("uid", 2, "", False), ("name", 3, "", False))
    add("Request", ("claims", 1, "Claim", True))
    add(
        "Device",
        ("request_names", 1, "", True),
        ("pool_name", 2, "", False),
        ("device_name", 3, "", False),
        ("cdi_device_ids", 4, "", True),
        *([("share_id", 5, "", False)] if share_id else []),
    )
    add("Answer", ("devices", 1, "Device", True), ("error", 2, "", False))
    # A map is on the wire a list of entries with a key and a value.
    add("Entry", ("key", 1, "", False), ("value", 2, "Answer", False))
    add("Response", ("claims", 1, "Entry", True))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return {
        made.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{package}.{made.name}")  # type: ignore[no-untyped-call]
        )
        for made in file.message_type
    }


async def call(socket: Path, path: str, request: bytes) -> bytes:
    def blocking() -> bytes:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
            method: Any = channel.unary_unary(path)
            answer: bytes = method(request, timeout=10)
            return answer

    return await within(asyncio.to_thread(blocking))


@pytest.mark.parametrize("service", api.DRA_SERVICES)
@on_a_loop
async def test_both_versions_are_those_of_kubernetes(tmp_path: Path, service: str) -> None:
    version = service.partition(".")[0]
    pb = messages(f"kubelet.{version}", share_id=version == "v1")
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        node.allocate(TRAIN, result(A, shareID="share-1"), result(B, "other"))
        gone = reference("gone", 2)
        claims = [
            pb["Claim"](namespace=one.namespace, uid=one.uid, name=one.name)
            for one in (TRAIN, gone)
        ]
        request = pb["Request"](claims=claims).SerializeToString()
        prefix = f"/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin"
        raw = await call(driver.registrar.socket, f"{prefix}/NodePrepareResources", request)
        answers = {one.key: one.value for one in pb["Response"].FromString(raw).claims}
        assert set(answers) == {TRAIN.uid, gone.uid}
        assert "does not exist" in answers[gone.uid].error
        first, second = answers[TRAIN.uid].devices
        assert (list(first.request_names), first.pool_name) == (["spus"], NODE)
        assert (first.device_name, second.device_name) == (device_name(A), device_name(B))
        assert first.cdi_device_ids[0] == f"moffett.ai/spu={A}"
        if version == "v1":
            assert (first.share_id, second.share_id) == ("share-1", "")
        raw = await call(driver.registrar.socket, f"{prefix}/NodeUnprepareResources", request)
        answers = {one.key: one.value for one in pb["Response"].FromString(raw).claims}
        assert set(answers) == {TRAIN.uid, gone.uid}
        assert not node.specs


@on_a_loop
async def test_what_is_no_request_is_refused_and_hurts_nobody(tmp_path: Path) -> None:
    async with dra_node(tmp_path) as node:
        driver = await node.start()
        path = api.prepare_path(api.DRA_SERVICES[0])
        with pytest.raises(grpc.RpcError) as caught:
            await call(driver.registrar.socket, path, b"\xff\xff\xff")
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await call(driver.registrar.socket, path, b"") == b""
        node.allocate(TRAIN, result(A))
        assert not (await node.prepare(TRAIN)).error
        assert len(node.kubelet.registered(DRIVER)) == 1
