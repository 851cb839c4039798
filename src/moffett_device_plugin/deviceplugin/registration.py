"""One call of the kubelet's Register."""

from __future__ import annotations

from pathlib import Path

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.client import Channel
from ..grpc.messages import Code, StatusError

TIMEOUT = 10.0


class RegistrationError(Exception):
    """It did not work. `kubelet_is_there` tells a refusal from silence."""

    def __init__(self, text: str, *, kubelet_is_there: bool) -> None:
        super().__init__(text)
        self.kubelet_is_there = kubelet_is_there


async def register(
    kubelet_socket: Path, endpoint: str, resource: str, options: pb.DevicePluginOptions
) -> None:
    """Raises RegistrationError. Success is not proof: the kubelet has yet to dial."""
    request = pb.RegisterRequest(
        version=api.VERSION,
        endpoint=endpoint,
        resource_name=resource,
        options=options,
    )
    try:
        async with await Channel.connect(kubelet_socket) as channel:
            await channel.unary(api.REGISTER, request.SerializeToString(), TIMEOUT)
    except OSError as error:
        raise RegistrationError(error.strerror or str(error), kubelet_is_there=False) from error
    except StatusError as error:
        # A connection that broke is a kubelet that ended, not one that said no.
        answered = error.code is not Code.UNAVAILABLE
        raise RegistrationError(error.text, kubelet_is_there=answered) from error
