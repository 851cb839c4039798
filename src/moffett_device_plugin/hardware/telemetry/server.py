"""Runs mx-smi whenever a client asks, and answers with its readings."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .. import SmiError
from ..smi_source import SmiSource
from .client import receive_line
from .given_nodes import RESTART, GivenNodes, remedy_of
from .peer import UntrustedError, check_peer, directory_owner
from .protocol import MAX_QUESTION, Answer, ProtocolError, check_question, encode_answer

log = logging.getLogger(__name__)

#: Connections at a time: two plugins during an update, doctor and top, and room.
MAX_CONNECTIONS = 16
#: Seconds for a client to put its question, and to take the answer.
CLIENT_DEADLINE = 5.0
#: How old a process is, in seconds, before it ends to be started again, and how long the
#: cause has been there: the nodes come and go while a card reboots.
LEAST_AGE = 60.0
STALE_FOR = 20.0
#: Seconds between two looks at whether the socket is still there.
WATCH_INTERVAL = 5.0


class TelemetryServer:
    """Listens on `path`. Each answer is of a run that began after its question; questions
    that come during a run share the next one."""

    def __init__(
        self,
        smi: SmiSource,
        given: GivenNodes,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._smi = smi
        self._given = given
        self._path = path
        self._clock = clock
        self._running = asyncio.Lock()
        self._begun = 0
        self._answer = Answer()
        self._began_at = 0.0
        self._told: tuple[str | None, tuple[str, ...], bool] | None = None
        self._connections = 0
        self._started_at = clock()
        self._stale_since: float | None = None

    async def run(self) -> None:
        """Until it is cancelled, or until only a start of the container helps. Raises OSError
        or UntrustedError where it cannot listen."""
        listening, identity = self._listen()
        try:
            while True:
                async with asyncio.TaskGroup() as tasks:
                    accepting = tasks.create_task(self._accept(listening, tasks))
                    await self._watch(identity)
                    accepting.cancel()
                if self._outlived:
                    log.warning("telemetry-ends", extra={"why": RESTART})
                    return
                log.warning("telemetry-socket-gone", extra={"socket": self._path})
                listening.close()
                listening, identity = self._listen()
        finally:
            listening.close()
            if _identity(self._path) == identity:
                with suppress(OSError):
                    self._path.unlink()

    async def _watch(self, identity: object) -> None:
        """Until the socket has gone from its path, or this container is of no more use."""
        while _identity(self._path) == identity and not self._outlived:  # noqa: ASYNC110
            await asyncio.sleep(WATCH_INTERVAL)  # nothing announces either

    @property
    def _outlived(self) -> bool:
        """Whether this container's nodes have been of no use for so long that it has to be
        started again."""
        now = self._clock()
        stale = self._stale_since is not None and now - self._stale_since >= STALE_FOR
        return stale and now - self._started_at >= LEAST_AGE

    def _listen(self) -> tuple[socket.socket, object]:
        """A socket with the path's inode; what an earlier process left there is removed."""
        directory = self._path.parent
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory_owner(directory)
        if _identity(self._path) is not None:
            self._path.unlink(missing_ok=True)
        listening = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            # Who is at the other end is asked of the kernel: the plugin may be of another user.
            os.fchmod(listening.fileno(), 0o600 if os.geteuid() == 0 else 0o666)
            listening.bind(str(self._path))
            listening.listen(MAX_CONNECTIONS)
        except BaseException:
            listening.close()
            raise
        log.info("telemetry-listening", extra={"socket": self._path})
        return listening, _identity(self._path)

    async def _accept(self, listening: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # no descriptors left, say
                log.warning("telemetry-accept-failed", extra={"error": error.strerror})
                await asyncio.sleep(1)
                continue
            if self._connections >= MAX_CONNECTIONS:
                connection.close()
                continue
            self._connections += 1
            tasks.create_task(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            check_peer(connection, self._path.parent)
            async with asyncio.timeout(CLIENT_DEADLINE):
                check_question(await receive_line(connection, MAX_QUESTION))
            answer = await self._ask()
            answer = replace(answer, age=self._clock() - self._began_at)
            async with asyncio.timeout(CLIENT_DEADLINE):
                await loop.sock_sendall(connection, encode_answer(answer))
        except (UntrustedError, ProtocolError) as error:
            log.warning("telemetry-client-refused", extra={"error": str(error)})
        except (TimeoutError, OSError):  # it has gone, or does not read
            pass
        finally:
            self._connections -= 1
            connection.close()

    async def _ask(self) -> Answer:
        wanted = self._begun + 1
        async with self._running:
            if self._begun < wanted:
                self._begun += 1
                self._began_at = self._clock()
                self._answer = await self._one_run()
                if not (self._answer.nodes and self._given.restart_helps):
                    self._stale_since = None
                elif self._stale_since is None:
                    self._stale_since = self._clock()
                self._tell(self._answer)
            return self._answer

    async def _one_run(self) -> Answer:
        if not self._smi.present:
            return Answer()
        try:
            report = await self._smi.query()
        except SmiError as error:
            problems = await self._given.check(everything=True)
            return Answer(error=str(error), nodes=tuple(str(p) for p in problems))
        listed = {device.bus_id for device in report.devices}
        problems = await self._given.check(listed=listed)
        if problems or not self._given.certain:
            # Whoever cannot be reached from here may be well: no row says nothing of it.
            report = replace(report, complete=False)
        return Answer(report=report, nodes=tuple(str(problem) for problem in problems))

    def _tell(self, answer: Answer) -> None:
        """Each change once."""
        now = answer.error, answer.nodes, answer.report is not None
        before, self._told = self._told, now
        if now == before:
            return
        for node in answer.nodes:
            if before is None or node not in before[1]:
                extra = {"problem": node, "remedy": remedy_of(node)}
                log.warning("device-node-unusable", extra=extra)
        if answer.error is not None:
            if before is None or before[0] is None:
                log.warning("mx-smi-failed", extra={"error": answer.error})
        elif answer.report is None:
            log.warning("mx-smi-missing", extra={"effect": "no readings"})
        elif before is None or not before[2]:
            log.info("mx-smi-answers", extra={"devices": len(answer.report.devices)})


def _identity(path: Path) -> object:
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None
