"""The few calls of the Kubernetes API that this plugin makes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

from .. import __version__
from .errors import ApiError, Trouble
from .http import HttpConnection, NoAnswerError, Response
from .responses import Object, decoded, lines, read_token, refusal, refused, version_of
from .settings import ApiSettings

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
#: An idle connection is closed after so many seconds: sooner than the server would.
KEEP_SECONDS = 30.0


class ApiClient:
    """Calls for one node. Every one ends within `request_timeout`, gives the decoded
    answer or raises ApiError, and tells the log what kind of trouble there is, once.

    Nothing is tried again here, except at once where the server cannot have acted on
    it: a kept connection that had died, a token that had been replaced. Redirects are
    not followed. `close` when done.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings
        self.trouble = Trouble(settings.url)
        self._kept: HttpConnection | None = None
        self._drop: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()

    async def get_node(self) -> Object:
        return await self._call("get", "nodes", "GET", self._node)

    async def patch_node(self, patch: Mapping[str, Any]) -> None:
        """A JSON merge patch: None deletes a key."""
        await self._call("patch", "nodes", "PATCH", self._node, patch, MERGE)

    async def patch_node_status(self, patch: Mapping[str, Any]) -> None:
        """A strategic merge patch: conditions are merged by their types."""
        path = self._node + "/status"
        await self._call("patch", "nodes/status", "PATCH", path, patch, STRATEGIC)

    async def create_event(self, event: Mapping[str, Any]) -> None:
        namespace = event["metadata"]["namespace"]
        path = _events(namespace)
        await self._call("create", "events", "POST", path, event, "application/json", expected=409)

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        path = f"{_events(namespace)}/{quote(name, safe='')}"
        await self._call("patch", "events", "PATCH", path, patch, MERGE, expected=404)

    async def list_node(self) -> tuple[Object | None, str]:
        """The node, None while there is no such object, and the version to watch from."""
        path = f"/api/v1/nodes?{urlencode({**self._own, 'resourceVersion': '0'})}"
        answer = await self._call("list", "nodes", "GET", path)
        items = answer.get("items")
        node = items[0] if isinstance(items, list) and items else None
        return (node if isinstance(node, dict) else None), version_of(answer)

    async def watch_node(
        self, version: str, seconds: int
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Changes of the node after `version`, as (type, object), until the server ends
        the watch, which it does after about `seconds`. On a connection of its own."""
        query = {
            **self._own,
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        verb, resource, target = "watch", "nodes", f"/api/v1/nodes?{urlencode(query)}"
        try:
            async with self._watching(target, seconds) as changes:
                self.trouble.succeeded(verb, resource)
                async for line in changes:
                    change = decoded(line)
                    kind, found = str(change.get("type")), change.get("object")
                    found = found if isinstance(found, dict) else {}
                    if kind == "ERROR":
                        code = found.get("code")
                        raise refusal(code if isinstance(code, int) else 500, found, None)
                    yield kind, found
        except ApiError as error:
            if error.status != 410:  # too old a version: to be expected, and mended by a list
                self.trouble.failed(verb, resource, error)
            raise

    def close(self) -> None:
        if self._drop is not None:
            self._drop.cancel()
            self._drop = None
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    # -- calls ----------------------------------------------------------------------

    @property
    def _node(self) -> str:
        return f"/api/v1/nodes/{quote(self.settings.node, safe='')}"

    @property
    def _own(self) -> dict[str, str]:
        return {"fieldSelector": f"metadata.name={self.settings.node}"}

    async def _call(
        self,
        verb: str,
        resource: str,
        method: str,
        target: str,
        content: Mapping[str, Any] | None = None,
        content_type: str = "",
        expected: int = 0,
    ) -> Object:
        """`expected`: the status of a failure that is none worth telling."""
        body = b"" if content is None else json.dumps(content).encode()
        try:
            response = await self._exchange(method, target, body, content_type)
            if not 200 <= response.status < 300:
                raise refused(response)
            answer = decoded(response.body)
        except ApiError as error:
            if error.status == 0 or error.status != expected:
                self.trouble.failed(verb, resource, error)
            raise
        self.trouble.succeeded(verb, resource)
        return answer

    async def _exchange(self, method: str, target: str, body: bytes, content_type: str) -> Response:
        try:
            async with self._turn, asyncio.timeout(self.settings.request_timeout):
                token = read_token(self.settings.token_file)
                response = await self._send(method, target, body, content_type, token)
                if (
                    response.status == 401
                    and (new := read_token(self.settings.token_file)) != token
                ):
                    response = await self._send(method, target, body, content_type, new)
                return response
        except NoAnswerError as error:
            raise ApiError(0, error.kind, str(error)) from error
        except TimeoutError as error:
            self.close()
            text = f"no answer in {self.settings.request_timeout:g} s"
            raise ApiError(0, "timeout", text) from error

    async def _send(
        self, method: str, target: str, body: bytes, content_type: str, token: str
    ) -> Response:
        headers = self._headers(token)
        if body:
            headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        kept, self._kept = self._kept, None
        if kept is not None and kept.reusable:
            try:
                return await self._on(kept, method, target, headers, body)
            except NoAnswerError as error:
                # The server closed it as we wrote.
                if not error.untouched:
                    raise
        elif kept is not None:
            kept.close()
        fresh = await HttpConnection.open(self.settings)
        return await self._on(fresh, method, target, headers, body)

    async def _on(
        self,
        connection: HttpConnection,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> Response:
        try:
            response = await connection.exchange(method, target, headers, body)
        except BaseException:  # a timeout or the end of the daemon, too
            connection.close()
            raise
        if self._drop is not None:
            self._drop.cancel()
        self._kept = connection
        self._drop = asyncio.get_running_loop().call_later(KEEP_SECONDS, self.close)
        return response

    @asynccontextmanager
    async def _watching(
        self, target: str, seconds: int
    ) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        connection: HttpConnection | None = None
        try:
            async with asyncio.timeout(self.settings.request_timeout):
                token = read_token(self.settings.token_file)
                connection = await HttpConnection.open(self.settings)
                response = await connection.begin("GET", target, self._headers(token), b"")
                if not 200 <= response.status < 300:
                    raise refused(response)
            silence = seconds + self.settings.request_timeout
            async with aclosing(lines(connection, silence)) as changes:
                yield changes
        except NoAnswerError as error:
            raise ApiError(0, error.kind, str(error)) from error
        except TimeoutError as error:
            raise ApiError(0, "timeout", "no answer to a watch") from error
        finally:
            if connection is not None:
                connection.close()

    def _headers(self, token: str) -> list[tuple[str, str]]:
        return [
            ("Host", self.settings.url.removeprefix("https://")),
            ("User-Agent", f"moffett-device-plugin/{__version__}"),
            ("Accept", "application/json"),
            ("Authorization", f"Bearer {token}"),
        ]


def _events(namespace: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/events"
