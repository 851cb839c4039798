"""NodePrepareResources and NodeUnprepareResources, in both versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from .. import api
from ..api import dra_pb2 as pb
from ..cdi.names import DEFAULT_KIND
from ..grpc.messages import Code, StatusError
from ..grpc.server import Method, Unary
from .claims import ClaimReference
from .errors import ClaimRefusedError
from .preparer import ClaimPreparer
from .records import ClaimRecord, RecordsError

log = logging.getLogger(__name__)


class DraService:
    """Answers each claim of a call for itself: one that fails has its `error`, and the
    others their devices."""

    def __init__(self, preparer: ClaimPreparer, cdi_kind: str = DEFAULT_KIND) -> None:
        self._preparer = preparer
        self._kind = cdi_kind

    def methods(self) -> Mapping[str, Method]:
        methods: dict[str, Method] = {}
        for service in api.DRA_SERVICES:
            methods[api.prepare_path(service)] = Unary(self._prepare)
            methods[api.unprepare_path(service)] = Unary(self._unprepare)
        return methods

    async def _prepare(self, request: bytes) -> bytes:
        try:
            claims = pb.NodePrepareResourcesRequest.FromString(request).claims
        except DecodeError as error:
            raise StatusError(Code.INVALID_ARGUMENT, f"not a request: {error}") from error
        answers = await asyncio.gather(*(self._prepare_one(_reference(one)) for one in claims))
        response = pb.NodePrepareResourcesResponse()
        for one, answer in zip(claims, answers, strict=True):
            response.claims[one.uid].CopyFrom(answer)
        return response.SerializeToString()

    async def _prepare_one(self, reference: ClaimReference) -> pb.NodePrepareResourceResponse:
        try:
            return response_of(await self._preparer.prepare(reference), self._kind)
        except ClaimRefusedError as error:
            return pb.NodePrepareResourceResponse(error=str(error))
        except Exception as error:  # of one claim: the others have their answers
            log.exception("claim-failed", extra={"claim": reference})
            text = f"claim {reference}: {type(error).__name__}: {error}"
            return pb.NodePrepareResourceResponse(error=text)

    async def _unprepare(self, request: bytes) -> bytes:
        try:
            claims = pb.NodeUnprepareResourcesRequest.FromString(request).claims
        except DecodeError as error:
            raise StatusError(Code.INVALID_ARGUMENT, f"not a request: {error}") from error
        response = pb.NodeUnprepareResourcesResponse()
        for one in claims:
            try:
                await self._preparer.unprepare(_reference(one))
            except RecordsError as error:
                response.claims[one.uid].error = f"claim {_reference(one)}: {error}"
            else:
                response.claims[one.uid].SetInParent()
        return response.SerializeToString()


def response_of(record: ClaimRecord, cdi_kind: str) -> pb.NodePrepareResourceResponse:
    """The devices as the kubelet takes them."""
    response = pb.NodePrepareResourceResponse()
    for number, device in enumerate(record.devices):
        added = response.devices.add(
            request_names=[device.request],
            pool_name=device.pool,
            device_name=device.device,
            cdi_device_ids=record.cdi_devices(number, cdi_kind),
        )
        if device.share_id is not None:
            added.share_id = device.share_id
    return response


def _reference(claim: pb.Claim) -> ClaimReference:
    return ClaimReference(claim.namespace, claim.name, claim.uid)
