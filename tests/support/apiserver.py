"""A small Kubernetes API server: one node, its events, TLS, and every way to misbehave."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moffett_device_plugin.kubernetes.client import ApiClient
from moffett_device_plugin.kubernetes.settings import ApiSettings
from moffett_device_plugin.runtime.watchable import Watchable
from tests.support.certificates import Issued, issue
from tests.support.running import until

NODE = "node-1"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
Object = dict[str, Any]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def content(self) -> Object:
        decoded: Object = json.loads(self.body)
        return decoded


@dataclass(frozen=True)
class Answer:
    """What goes on the wire. `raw` in place of all else; `then_close` ends the connection;
    `done` applies the request before the answer, as a server does that answers too late."""

    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    then_close: bool = False
    hang: bool = False
    done: bool = False


def refusal(status: int, reason: str = "", message: str = "", **headers: str) -> Answer:
    text = message or f"the fake API server answers {status}"
    content = {"kind": "Status", "status": "Failure", "code": status, "message": text}
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {**content, "reason": reason}, fields)


HANG = Answer(hang=True)
CLOSE = Answer(raw=b"", then_close=True)
GARBAGE = Answer(raw=b"\x16\x03 what?\r\n\r\n", then_close=True)


class ApiServer:
    """Answers from `script` first, then from `rule`, and then as a real one does.

    `changed` counts what happened, for those who wait for it.
    """

    def __init__(self, folder: Path, *, hosts: tuple[str, ...] = ("127.0.0.1",)) -> None:
        self.node: Object = {
            "kind": "Node",
            "metadata": {"name": NODE, "resourceVersion": "1", "labels": {"zone": "a"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.events: dict[str, Object] = {}
        self.claims: dict[tuple[str, str], Object] = {}  # by namespace and name
        self.slices: dict[str, Object] = {}  # ResourceSlices by name; see `dra`
        self.dra = True  # whether there is resource.k8s.io/v1
        self.keeps_taints = True
        self._version = 100
        self.requests: list[Request] = []
        self.script: deque[Answer] = deque()
        self.rule: Callable[[Request], Answer | None] = lambda _: None
        self.token = "first-token"
        self.changed: Watchable[int] = Watchable(0)
        self.connections = 0
        self.ca = issue("test CA")
        self._folder = folder
        self._certificate = issue("kube-apiserver", *hosts, by=self.ca)
        self._watches: set[asyncio.Queue[bytes | None]] = set()
        self._slice_watches: set[asyncio.Queue[bytes | None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        (folder / "ca.crt").write_text(self.ca.certificate)
        self.write_token(self.token)

    def write_token(self, token: str) -> None:
        (self._folder / "token").write_text(token + "\n")

    def certify(self, certificate: Issued) -> None:
        """Shows this one from the next `start` on."""
        self._certificate = certificate

    def settings(self, **changes: Any) -> ApiSettings:
        values: dict[str, Any] = {
            "url": f"https://127.0.0.1:{self.port}",
            "node": NODE,
            "token_file": self._folder / "token",
            "ca_file": self._folder / "ca.crt",
            **changes,
        }
        return ApiSettings(**values)

    async def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._certificate.write(self._folder))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Gone, with all its connections; `start` brings it back on the same port."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def cut(self) -> None:
        """Every connection ends, here and now."""
        for writer in self._writers:
            writer.transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(self.changed, condition)

    def seen(self, method: str, part: str = "") -> list[Request]:
        return [r for r in self.requests if r.method == method and part in r.path]

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.node["metadata"]["labels"]
        return labels

    @property
    def condition(self) -> Object | None:
        found = [c for c in self.node["status"]["conditions"] if c["type"] == "SPUHealthy"]
        return found[0] if found else None

    # -- watches --------------------------------------------------------------------

    @property
    def watching(self) -> int:
        return len(self._watches)

    def push(self, kind: str, found: Object) -> None:
        """Tells every watch."""
        self.push_raw(json.dumps({"type": kind, "object": found}).encode() + b"\n")

    def push_raw(self, data: bytes | None) -> None:
        """Some bytes to every watch; None ends them in order."""
        for watch in self._watches:
            watch.put_nowait(data)

    def annotate(self, annotations: dict[str, str]) -> None:
        """Somebody else's annotations, in place of those that the node has."""
        self.node["metadata"]["annotations"] = annotations
        self._node_changed()

    def relabel(self, **labels: str) -> None:
        """Somebody else's change of the node."""
        self.node["metadata"]["labels"].update(labels)
        self._node_changed()

    def _node_changed(self) -> None:
        metadata = self.node["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        self.push("MODIFIED", self.node)

    # -- one connection ---------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self._writers.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while await self._one(reader, writer, self.connections):
                    pass
        except asyncio.CancelledError:
            pass  # by stop(): a cancelled server task is no error of the test
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self.tasks.discard(task)
            self._happened()

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(method, parts.path, query, headers, body, connection)
        answer = self.script.popleft() if self.script else self.rule(request)
        self.requests.append(request)
        if answer is None and headers.get("authorization") != f"Bearer {self.token}":
            answer = refusal(401, "Unauthorized", "Unauthorized")
        if answer is None and "watch" in query:
            self._happened()
            of_slices = request.path == SLICES
            return await self._watch(writer, self._slice_watches if of_slices else self._watches)
        if answer is None or answer.done:
            real = self._handle(request)
            answer = answer or real
        self._happened()
        if answer.hang:
            await reader.read()
            return False
        writer.write(_wire(answer) if answer.raw is None else answer.raw)
        await writer.drain()
        return not answer.then_close

    async def _watch(
        self, writer: asyncio.StreamWriter, watches: set[asyncio.Queue[bytes | None]]
    ) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        watches.add(queue)
        self._happened()
        try:
            while (data := await queue.get()) is not None:
                writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            watches.discard(queue)
        return True

    def _happened(self) -> None:
        self.changed.set(self.changed.value + 1)

    # -- what a real one does -----------------------------------------------------------

    def _handle(self, request: Request) -> Answer:
        path, folder = request.path, "/api/v1/namespaces/default/events"
        if path == "/api/v1/nodes":
            version = self.node["metadata"]["resourceVersion"]
            return Answer(content={"metadata": {"resourceVersion": version}, "items": [self.node]})
        if "/resourceclaims/" in path:
            claim = self.claims.get((path.split("/")[-3], path.split("/")[-1]))
            return refusal(404, "NotFound", "not found") if claim is None else Answer(content=claim)
        if path.startswith(SLICES):
            return self._slice(request)
        if path.startswith(f"/api/v1/nodes/{NODE}"):
            if request.method == "PATCH":
                self._patch_node(request)
            return Answer(content=self.node)
        if path == folder:
            name = request.content["metadata"]["name"]
            if name in self.events:
                return refusal(409, "AlreadyExists", f'events "{name}" already exists')
            self.events[name] = request.content
            return Answer(201, self.events[name])
        event = self.events.get(path.removeprefix(f"{folder}/"))
        if event is None:
            return refusal(404, "NotFound", "not found")
        event.update(request.content)
        return Answer(content=event)

    def _slice(self, request: Request) -> Answer:
        if not self.dra:
            return refusal(404, "NotFound", "the server could not find the requested resource")
        name = request.path.removeprefix(SLICES).strip("/")
        if not name:
            version = {"resourceVersion": str(self._version)}
            return Answer(content={"metadata": version, "items": list(self.slices.values())})
        if request.method == "DELETE":
            uid = request.content["preconditions"]["uid"]
            if name not in self.slices:
                return refusal(404, "NotFound", "not found")
            if self.slices[name]["metadata"]["uid"] != uid:
                return refusal(409, "Conflict", "another uid")
            self.remove_slice(name)
            return Answer(content={})
        assert request.headers["content-type"] == "application/apply-patch+yaml"
        assert request.query["force"] == "true"
        devices = request.content["spec"].get("devices", [])
        most = 64 if any(device.get("taints") for device in devices) else 128
        if len(devices) > most:
            text = f"spec.devices: Too many: {len(devices)}: must have at most {most} items"
            return refusal(422, "Invalid", text)
        self.put_slice(name, request.content)
        answer = Answer(content=self.slices[name])
        if self._collectable(self.slices[name]):
            asyncio.get_running_loop().call_soon(self.collect)
        return answer

    def put_slice(self, name: str, content: Object) -> None:
        """As a server stores it: with an uid, a version, and the times of its taints."""
        self._version += 1
        before = self.slices.get(name)
        uid = before["metadata"]["uid"] if before else f"slice-{self._version}"
        metadata = {"name": name, "uid": uid, "resourceVersion": str(self._version)}
        content = json.loads(json.dumps(content))
        content["metadata"].update(metadata)
        for device in content["spec"]["devices"]:
            if not self.keeps_taints:
                device.pop("taints", None)
            for taint in device.get("taints", ()):
                taint.setdefault("timeAdded", f"time-{self._version}")
        self.slices[name] = content
        self._tell_slice("MODIFIED" if before else "ADDED", content)

    def remove_slice(self, name: str) -> None:
        self._tell_slice("DELETED", self.slices.pop(name))

    def collect(self) -> None:
        """Removes what a Node owned that is no more, as the garbage collector does."""
        for name in [name for name, found in self.slices.items() if self._collectable(found)]:
            self.remove_slice(name)

    def _collectable(self, found: Object) -> bool:
        own = self.node["metadata"].get("uid")
        owners = found["metadata"].get("ownerReferences") or ()
        return own is not None and any(owner["uid"] != own for owner in owners)

    def _tell_slice(self, kind: str, found: Object) -> None:
        line = json.dumps({"type": kind, "object": found}).encode() + b"\n"
        for watch in self._slice_watches:
            watch.put_nowait(line)

    def _patch_node(self, request: Request) -> None:
        for name, value in request.content.get("metadata", {}).get("labels", {}).items():
            if value is None:
                self.labels.pop(name, None)
            else:
                self.labels[name] = value
        for condition in request.content.get("status", {}).get("conditions", []):
            assert request.headers["content-type"] == "application/strategic-merge-patch+json"
            found: list[Object] = self.node["status"]["conditions"]
            same = [c for c in found if c["type"] == condition["type"]]
            if same:
                same[0].update(condition)
            else:
                found.append(condition)
        self._node_changed()


def _wire(answer: Answer) -> bytes:
    body = b"" if answer.content is None else json.dumps(answer.content).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in (fields | answer.headers).items()]
    return "\r\n".join([f"HTTP/1.1 {answer.status} Told", *lines, "", ""]).encode() + body


@asynccontextmanager
async def api_server(folder: Path, **options: Any) -> AsyncIterator[ApiServer]:
    server = ApiServer(folder, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def with_server(
    folder: Path, play: Callable[[ApiServer, ApiClient], Awaitable[None]], **settings: object
) -> None:
    """Runs `play` with a server and a client of it, in a loop of its own."""

    async def run() -> None:
        async with api_server(folder) as server:
            client = ApiClient(server.settings(**settings))
            try:
                await play(server, client)
            finally:
                client.close()

    asyncio.run(run())
