"""Responses of the API server and the service account token, read with limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from .errors import ApiError
from .http import MAX_BODY, HttpConnection, NoResponseError, Response

Object = dict[str, Any]

_MAX_TOKEN = 64 * 1024
_MAX_TEXT = 400


async def lines(connection: HttpConnection, timeout: float) -> AsyncGenerator[bytes, None]:
    """Lines of the body as they arrive. Raises TimeoutError after `timeout` seconds without
    data, NoResponseError for a line longer than MAX_BODY."""
    rest = bytearray()
    async with aclosing(connection.data()) as chunks:
        while True:
            async with asyncio.timeout(timeout):
                data = await anext(chunks, None)
            if data is None:
                return
            rest += data
            *lines, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in lines:
                if line.strip():
                    yield bytes(line)
            if len(rest) > MAX_BODY:
                raise NoResponseError(
                    "too-long", f"one event of the watch is longer than {MAX_BODY} bytes"
                )


def read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(_MAX_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise ApiError(0, "token-file", f"{path}: {text}") from error
    if not token or not token.isprintable() or " " in token:
        raise ApiError(0, "token-file", f"{path}: contains no token")
    return token


def decode(body: bytes) -> Object:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(0, "not-json", "the response is not JSON") from error
    if not isinstance(value, dict):
        raise ApiError(0, "not-json", "the response is not a JSON object")
    return value


def error_of(response: Response) -> ApiError:
    """Of a response whose status is not 2xx."""
    try:
        status = decode(response.body)
    except ApiError:
        status = {}
    try:
        after = float(response.headers.get("retry-after", ""))
    except ValueError:
        after = 0.0
    return error_from_status(response.status, status, after if after > 0 else None)


def error_from_status(code: int, status: Object, retry_after: float | None) -> ApiError:
    """From a `Status` object of the API; `code` is HTTP's."""
    text = str(status.get("message") or f"HTTP status {code}")[:_MAX_TEXT]
    kind = str(status.get("reason") or f"http-{code}")[:_MAX_TEXT]
    return ApiError(code, kind, text, retry_after)


def resource_version(found: Object) -> str:
    metadata = found.get("metadata")
    return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""
