"""Asks the telemetry process for the readings of mx-smi."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .. import SmiAbsentError, SmiError
from ..types import SmiReport
from .peer import UntrustedError, check_peer
from .protocol import MAX_ANSWER, ProtocolError, decode_answer, encode_question

#: Seconds by which two clocks of the same machine may differ, with roundings.
_SLACK = 0.5


class TelemetryClient:
    """One connection for each question, so that nothing has to be restored after a restart
    of either side. `deadline` is in seconds, for the whole of a question."""

    def __init__(
        self, path: Path, deadline: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._deadline = deadline
        self._clock = clock

    @property
    def present(self) -> bool:
        """Whether a telemetry process has been there, and did not end in order."""
        try:
            return stat.S_ISSOCK(os.lstat(self._path).st_mode)
        except OSError:
            return False

    async def query(self) -> SmiReport:
        asked = self._clock()
        try:
            async with asyncio.timeout(self._deadline):
                line = await self._exchange()
            answer = decode_answer(line)
        except TimeoutError:
            raise SmiError(
                f"the telemetry process did not answer in {self._deadline:g} s"
            ) from None
        except FileNotFoundError:
            raise SmiAbsentError(f"no telemetry process: no {self._path}") from None
        except ConnectionRefusedError:
            raise SmiError(f"no telemetry process listens on {self._path}") from None
        except OSError as error:
            raise SmiError(f"{self._path}: {error.strerror or error}") from error
        except (ProtocolError, UntrustedError) as error:
            raise SmiError(f"{self._path}: {error}") from error
        wrong = "".join(f"; {node}" for node in answer.nodes)
        if answer.error is not None:
            raise SmiError(f"{answer.error}{wrong}")
        if answer.report is None:
            raise SmiAbsentError("there is no mx-smi in the telemetry container")
        if answer.age > self._clock() - asked + _SLACK:
            raise SmiError(f"the telemetry process answers with readings of {answer.age:.0f} s ago")
        report = answer.report
        if answer.nodes:  # what mx-smi cannot reach, it cannot list
            report = replace(report, complete=False)
        return replace(report, age=answer.age, notes=answer.nodes)

    async def _exchange(self) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, str(self._path))
            check_peer(connection, self._path.parent)
            await loop.sock_sendall(connection, encode_question())
            return await receive_line(connection, MAX_ANSWER)


async def receive_line(connection: socket.socket, most: int) -> bytes:
    """What comes until the first line ends. Raises ProtocolError where that is more than
    `most` bytes, or the other side ends before."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while not received.endswith(b"\n"):
        part = await loop.sock_recv(connection, min(65_536, most + 1 - len(received)))
        if not part:
            raise ProtocolError("the connection ended within a message")
        received += part
        if len(received) > most:
            raise ProtocolError(f"a message of more than {most} bytes")
    return bytes(received)
