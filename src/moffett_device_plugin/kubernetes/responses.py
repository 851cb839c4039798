"""What comes back from the API server, and the token that goes there: read with limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from .errors import ApiError
from .http import MAX_BODY, HttpConnection, NoAnswerError, Response

Object = dict[str, Any]

_MAX_TOKEN = 64 * 1024
_MAX_TEXT = 400


async def lines(connection: HttpConnection, silence: float) -> AsyncGenerator[bytes, None]:
    rest = bytearray()
    async with aclosing(connection.data()) as chunks:
        while True:
            async with asyncio.timeout(silence):
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
                raise NoAnswerError("too-long", f"one change is longer than {MAX_BODY} bytes")


def read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(_MAX_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "not a token"
        raise ApiError(0, "token-file", f"{path}: {text}") from error
    if not token or not token.isprintable() or " " in token:
        raise ApiError(0, "token-file", f"{path}: no token in it")
    return token


def decoded(body: bytes) -> Object:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(0, "not-json", "the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise ApiError(0, "not-json", "the answer is not a JSON object")
    return answer


def refused(response: Response) -> ApiError:
    try:
        status = decoded(response.body)
    except ApiError:
        status = {}
    try:
        after = float(response.headers.get("retry-after", ""))
    except ValueError:
        after = 0.0
    return refusal(response.status, status, after if after > 0 else None)


def refusal(code: int, status: Object, retry_after: float | None) -> ApiError:
    text = str(status.get("message") or f"HTTP status {code}")[:_MAX_TEXT]
    kind = str(status.get("reason") or f"http-{code}")[:_MAX_TEXT]
    return ApiError(code, kind, text, retry_after)


def version_of(found: Object) -> str:
    metadata = found.get("metadata")
    return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""
