"""One call of the kubelet's Register method."""

from __future__ import annotations

from pathlib import Path

from .. import api
from ..api import deviceplugin_v1beta1_pb2 as pb
from ..grpc.client import Channel
from ..grpc.messages import Code, StatusError

TIMEOUT = 10.0


class RegistrationError(Exception):
    """The call failed. `answered`: the kubelet returned an error; else nobody answered."""

    def __init__(self, text: str, *, answered: bool) -> None:
        super().__init__(text)
        self.answered = answered


async def register(
    kubelet_socket: Path, endpoint: str, resource: str, options: pb.DevicePluginOptions
) -> None:
    """Raises RegistrationError. Success is not proof: kubelets up to 1.24 connect to the
    plugin only afterwards."""
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
        raise RegistrationError(error.strerror or str(error), answered=False) from error
    except StatusError as error:
        # A connection that broke is a kubelet that ended, not one that refused.
        answered = error.code is not Code.UNAVAILABLE
        raise RegistrationError(error.text, answered=answered) from error
