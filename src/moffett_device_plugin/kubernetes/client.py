"""The calls of the Kubernetes API that this plugin makes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

from .. import __version__
from .errors import ApiError, ErrorLog
from .http import HttpConnection, NoResponseError, Response
from .responses import (
    Object,
    decode,
    error_from_status,
    error_of,
    lines,
    read_token,
    resource_version,
)
from .settings import ApiSettings

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
#: Seconds after which an idle connection is closed: before the server closes it.
KEEP_SECONDS = 30.0


class ApiClient:
    """Calls for one node. Each ends within `request_timeout`, returns the decoded response
    or raises ApiError, and logs each kind of error once.

    A call is repeated only where the server cannot have acted on it: on a kept connection
    that the server had closed, or with a token that had been replaced. Redirects are not
    followed. Call `close` at the end.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings
        self.errors = ErrorLog(settings.url)
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
        """The node, None if it does not exist, and the resourceVersion to watch from."""
        path = f"/api/v1/nodes?{urlencode({**self._own, 'resourceVersion': '0'})}"
        found = await self._call("list", "nodes", "GET", path)
        items = found.get("items")
        node = items[0] if isinstance(items, list) and items else None
        return (node if isinstance(node, dict) else None), resource_version(found)

    async def watch_node(
        self, version: str, seconds: int
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Changes of the node after `version`, as (type, object), until the server ends
        the watch after about `seconds`. Uses a connection of its own."""
        async with aclosing(
            self._watch("nodes", "/api/v1/nodes", self._own, version, seconds)
        ) as it:
            async for change in it:
                yield change

    async def _watch(
        self, resource: str, path: str, selector: Mapping[str, str], version: str, seconds: int
    ) -> AsyncGenerator[tuple[str, Object], None]:
        query = {
            **selector,
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        verb, target = "watch", f"{path}?{urlencode(query)}"
        try:
            async with self._watching(target, seconds) as changes:
                self.errors.succeeded(verb, resource)
                async for line in changes:
                    change = decode(line)
                    kind, found = str(change.get("type")), change.get("object")
                    found = found if isinstance(found, dict) else {}
                    if kind == "ERROR":
                        code = found.get("code")
                        raise error_from_status(code if isinstance(code, int) else 500, found, None)
                    yield kind, found
        except ApiError as error:
            if error.status != 410:  # Gone: expected, and handled by a new list
                self.errors.failed(verb, resource, error)
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
        """`expected`: an HTTP status that is not logged as an error."""
        body = b"" if content is None else json.dumps(content).encode()
        try:
            response = await self._exchange(method, target, body, content_type)
            if not 200 <= response.status < 300:
                raise error_of(response)
            decoded = decode(response.body)
        except ApiError as error:
            if error.status == 0 or error.status != expected:
                self.errors.failed(verb, resource, error)
            raise
        self.errors.succeeded(verb, resource)
        return decoded

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
        except NoResponseError as error:
            raise ApiError(0, error.kind, str(error)) from error
        except TimeoutError as error:
            self.close()
            text = f"no response in {self.settings.request_timeout:g} s"
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
            except NoResponseError as error:
                # The server closed the connection while the request was sent.
                if not error.nothing_received:
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
        except BaseException:  # including a timeout and cancellation
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
                    raise error_of(response)
            idle = seconds + self.settings.request_timeout
            async with aclosing(lines(connection, idle)) as changes:
                yield changes
        except NoResponseError as error:
            raise ApiError(0, error.kind, str(error)) from error
        except TimeoutError as error:
            raise ApiError(0, "timeout", "no response to the watch") from error
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
