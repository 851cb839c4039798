"""Who can reach the metrics port, and the API server with its answers."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from moffett_device_plugin.kubernetes.client import ApiClient
from moffett_device_plugin.kubernetes.errors import ApiError, Backoff
from moffett_device_plugin.kubernetes.responses import error_from_status
from moffett_device_plugin.kubernetes.settings import check_url
from moffett_device_plugin.metrics.server import Limits
from moffett_device_plugin.runtime.errors import ConfigurationError
from tests.integration.test_metrics_server import serving
from tests.support.apiserver import GARBAGE, Answer, ApiServer, refusal, with_server
from tests.support.running import on_a_loop, within

# -- metrics -----------------------------------------------------------------------------------


@on_a_loop
async def test_a_probe_is_answered_however_many_connections_are_held() -> None:
    async with serving() as it:
        held = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(100)]
        for _, writer in held[50:]:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # and not the rest
        for _ in range(3):
            assert (await it.get("/healthz"))[0] == 200
        for reader, _ in held[: 100 - Limits().connections]:
            with suppress(ConnectionResetError):
                assert await within(reader.read()) == b""
        for _, writer in held:
            writer.transport.abort()


@on_a_loop
async def test_a_request_is_bounded_in_every_part() -> None:
    async with serving() as it:
        for request, status in (
            (b"GET /" + b"a" * 9000, b"431"),
            (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 3000, b"431"),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 9000, b"431"),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", b"413"),
            (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello", b"413"),
        ):
            answer = await within(it.raw(request))
            assert answer.split(b" ", 2)[1] == status, request[:40]
        assert (await it.get("/healthz"))[0] == 200


@on_a_loop
async def test_nothing_can_be_changed_or_read_but_three_pages() -> None:
    async with serving() as it:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
            assert (await it.get("/metrics", method=method))[0] == 405
        for path in ("/../etc/passwd", "/metrics/../x", "//", "/debug/pprof/", "/%2e%2e/", "/env"):
            status, _, body = await it.get(path)
            assert status == 404
            assert b"root:" not in body


# -- the API server ----------------------------------------------------------------------------

TOKEN = "first-token"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_leads_nowhere(tmp_path: Path, status: int) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as elsewhere:
        elsewhere.setblocking(False)
        for scheme in ("http", "https"):
            url = f"{scheme}://127.0.0.1:{elsewhere.getsockname()[1]}/"

            async def play(server: ApiServer, client: ApiClient, url: str = url) -> None:
                server.script.append(Answer(status, headers={"Location": url}))
                with pytest.raises(ApiError):
                    await client.get_node()

            with_server(tmp_path, play)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_no_proxy_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as proxy:
        proxy.setblocking(False)
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")

        async def play(server: ApiServer, client: ApiClient) -> None:
            await client.get_node()
            assert len(server.requests) == 1

        with_server(tmp_path, play)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_the_token_is_in_no_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def play(server: ApiServer, client: ApiClient) -> None:
        answers = [GARBAGE, refusal(401, "Unauthorized"), refusal(403, "Forbidden"), Answer(500)]
        for answer in answers:
            server.script.extend([answer, answer])
            with pytest.raises(ApiError) as caught:
                await client.get_node()
            server.script.clear()
            assert TOKEN not in str(caught.value)
            assert TOKEN not in repr(caught.value)
        await client.get_node()
        assert server.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in repr(client.settings)

    with_server(tmp_path, play)
    assert len(caplog.records) > 3
    for record in caplog.records:
        assert TOKEN not in str(vars(record))


@pytest.mark.parametrize(
    "url",
    [
        "http://10.96.0.1", "https://", "https://joe:hunter2@10.96.0.1", "ftp://10.96.0.1",
        "https://10.96.0.1/elsewhere", "https://10.96.0.1?x", "https://10.96.0.1#x",
        "https://10.96.0.1\r\nX-Evil: 1", "https://10.96.0.1:99999", "//10.96.0.1",
    ],
)  # fmt: skip
def test_the_token_goes_to_https_and_to_nothing_beside_it(url: str) -> None:
    with pytest.raises(ConfigurationError):
        check_url(url)


@pytest.mark.parametrize(
    "node", ["../../secrets", "n?x=1", "n#x", "n/status", "n%2fstatus", "a b", "n\r\nX-Evil: 1"]
)
def test_a_nodes_name_stays_one_part_of_a_path(tmp_path: Path, node: str) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        server.rule = lambda _: refusal(404, "NotFound")
        for call in (client.get_node(), client.patch_node({}), client.list_node()):
            with pytest.raises(ApiError):
                await call
        read, patched, listed = server.requests
        for request in (read, patched):
            path = request.path
            assert path.startswith("/api/v1/nodes/")
            assert path.count("/") == 4
            assert "?" not in path
            assert "x-evil" not in request.headers
        assert listed.path == "/api/v1/nodes"
        assert listed.query["fieldSelector"] == f"metadata.name={node}"
        assert "x-evil" not in listed.headers

    with_server(tmp_path, play, node=node)


def test_a_refusal_is_kept_short_and_a_pause_finite() -> None:
    error = error_from_status(500, {"message": "x" * 10**6, "reason": "y" * 10**6}, float("inf"))
    assert len(str(error)) + len(error.kind) < 1000
    assert Backoff(most=300.0).failed(error) <= 300.0
