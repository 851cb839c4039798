"""Which registrations a kubelet refuses, with its error texts."""

from __future__ import annotations

import re

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.messages import Code, StatusError


def check_request(request: pb.RegisterRequest) -> None:
    """Raises StatusError with the text of a real kubelet."""
    if request.version != api.VERSION:
        raise StatusError(
            Code.UNKNOWN,
            f'requested API version "{request.version}" is not supported by kubelet. '
            f'Supported version is ["{api.VERSION}"]',
        )
    if not _is_extended_resource(request.resource_name):
        raise StatusError(Code.UNKNOWN, f'the ResourceName "{request.resource_name}" is invalid')


def _is_extended_resource(name: str) -> bool:
    domain, _, rest = name.partition("/")
    return bool(re.fullmatch(r"[a-z0-9.-]+", domain) and re.fullmatch(r"[\w.-]{1,63}", rest))
