"""The client against a server that misbehaves in every way that is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from moffett_device_plugin.kubernetes import responses as answers
from moffett_device_plugin.kubernetes.client import ApiClient
from moffett_device_plugin.kubernetes.errors import ApiError
from tests.support.apiserver import (
    CLOSE,
    GARBAGE,
    HANG,
    NODE,
    Answer,
    ApiServer,
    api_server,
    refusal,
    with_server,
)
from tests.support.certificates import issue


async def fails(call: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


def test_calls_share_one_connection(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        assert (await client.get_node())["metadata"]["name"] == NODE
        await client.patch_node({"metadata": {"labels": {"a": "b", "zone": None}}})
        await asyncio.gather(client.get_node(), client.get_node())
        assert server.labels == {"a": "b"}
        assert server.connections == 1
        (patch,) = server.seen("PATCH")
        assert patch.headers["content-type"] == "application/merge-patch+json"
        assert patch.headers["authorization"] == "Bearer first-token"

    with_server(tmp_path, play)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (CLOSE, "closed"),
        (GARBAGE, "http"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le", then_close=True), "closed"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le"), "timeout"),
    ],
)
def test_no_answer_is_an_error_and_the_next_call_works(
    tmp_path: Path, answer: Answer, kind: str
) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        server.script.append(answer)
        error = await fails(client.get_node())
        assert (error.status, error.kind) == (0, kind)
        await client.get_node()

    with_server(tmp_path, play, request_timeout=0.3)


def test_a_server_that_hangs_is_given_up_on(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        server.script.append(HANG)
        error = await fails(client.get_node())
        assert str(error) == "no response in 0.2 s"
        await client.get_node()
        assert server.connections == 2, "what comes late must not be taken for another's answer"

    with_server(tmp_path, play, request_timeout=0.2)


def test_a_kept_connection_that_died_costs_nothing(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        await client.get_node()
        server.script.append(CLOSE)  # as a server does that had just timed it out
        await client.get_node()
        server.cut()
        await server.until(lambda: server.connections == 2)
        await client.get_node()
        assert server.connections == 3

    with_server(tmp_path, play)


def test_a_kept_connection_that_dies_within_an_answer_is_no_reason_to_ask_again(
    tmp_path: Path,
) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        await client.get_node()
        server.script.append(Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le", then_close=True))
        assert (await fails(client.get_node())).kind == "closed"
        assert len(server.requests) == 2

    with_server(tmp_path, play)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        await server.stop()
        error = await fails(client.get_node())
        assert (error.status, str(error)) == (0, "Connection refused")
        await server.start()
        await client.get_node()

    with_server(tmp_path, play)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
def test_refusals_carry_what_the_server_says(tmp_path: Path, status: int) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        server.rule = lambda _: refusal(status, "Why", "because", Retry_After="7")
        error = await fails(client.get_node())
        assert (error.status, error.kind, str(error)) == (status, "Why", "because")
        assert error.retry_after == 7

    with_server(tmp_path, play)


@pytest.mark.parametrize(
    "body", [b"", b"<html>gateway</html>", b"[]", b"[" * 100_000, b'"text"', b"\xff\xfe"]
)
@pytest.mark.parametrize("status", [200, 502])
def test_bodies_that_make_no_sense(tmp_path: Path, status: int, body: bytes) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        server.rule = lambda _: Answer(raw=head + body)
        error = await fails(client.get_node())
        assert error.status == (0 if status == 200 else status)

    with_server(tmp_path, play)


def test_an_endless_answer_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moffett_device_plugin.kubernetes.http.MAX_BODY", 100_000)

    async def play(server: ApiServer, client: ApiClient) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        server.script.append(Answer(raw=head + chunk * 4))
        assert (await fails(client.get_node())).kind == "too-long"
        server.script.append(Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000))
        assert (await fails(client.get_node())).kind == "http"

    with_server(tmp_path, play)


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        elsewhere = f"https://127.0.0.1:{server.port}/elsewhere"
        server.script.append(Answer(307, headers={"Location": elsewhere}))
        assert (await fails(client.get_node())).status == 307
        assert len(server.requests) == 1

    with_server(tmp_path, play)


# -- who we are, and who it is -------------------------------------------------------------


def test_a_replaced_token_is_read_again(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        await client.get_node()
        server.token = "second-token"
        server.write_token(server.token)
        await client.get_node()

    with_server(tmp_path, play)


def test_a_token_that_is_replaced_at_that_very_moment(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        def rotate(_: object) -> Answer | None:
            if server.token == "first-token":
                server.token = "second-token"
                server.write_token(server.token)
                return refusal(401, "Unauthorized")
            return None

        server.rule = rotate
        await client.get_node()
        assert [r.headers["authorization"] for r in server.requests] == [
            "Bearer first-token",
            "Bearer second-token",
        ]

    with_server(tmp_path, play)


def test_a_token_that_is_wrong_is_tried_once(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        server.write_token("wrong")
        assert (await fails(client.get_node())).status == 401
        assert len(server.requests) == 1

    with_server(tmp_path, play)


@pytest.mark.parametrize("content", [b"", b"a\r\nX-Evil: 1", b"\xff\xfe"])
def test_a_token_that_is_none_is_never_sent(tmp_path: Path, content: bytes) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        (tmp_path / "token").write_bytes(content)
        error = await fails(client.get_node())
        assert error.kind == "token-file"
        assert str(tmp_path / "token") in str(error)
        assert server.requests == []

    with_server(tmp_path, play)


def test_a_server_of_another_ca_gets_no_token(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        (tmp_path / "ca.crt").write_text(issue("another CA").certificate)
        assert (await fails(client.get_node())).kind == "certificate"
        (tmp_path / "ca.crt").write_text(server.ca.certificate)
        await client.get_node()  # the file is read anew: a CA can be replaced too
        assert len(server.requests) == 1

    with_server(tmp_path, play)


@pytest.mark.parametrize(
    ("hosts", "seconds"),
    [(("127.0.0.2",), 3600.0), (("localhost",), 3600.0), (("127.0.0.1",), -60.0)],
)
def test_a_certificate_of_another_address_or_time_gets_no_token(
    tmp_path: Path, hosts: tuple[str, ...], seconds: float
) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        await server.stop()
        server.certify(issue("other", *hosts, by=server.ca, seconds=seconds))
        await server.start()
        assert (await fails(client.get_node())).kind == "certificate"
        assert server.requests == []

    with_server(tmp_path, play)


def test_a_server_by_name(tmp_path: Path) -> None:
    async def run() -> None:
        async with api_server(tmp_path, hosts=("localhost",)) as server:
            client = ApiClient(server.settings(url=f"https://localhost:{server.port}"))
            await client.get_node()
            client.close()
            assert server.requests[0].headers["host"] == f"localhost:{server.port}"

    asyncio.run(run())


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_a_ca_file_without_a_certificate(tmp_path: Path, content: str) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        (tmp_path / "ca.crt").write_text(content)
        error = await fails(client.get_node())
        assert error.kind == "ca-file"
        (tmp_path / "ca.crt").unlink()
        assert (await fails(client.get_node())).kind == "ca-file"

    with_server(tmp_path, play)


# -- watches ---------------------------------------------------------------------------


def test_a_watch_gives_changes_until_the_server_ends_it(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        async def follow() -> list[str]:
            return [
                node["metadata"]["labels"].get("n", "")
                async for _, node in client.watch_node("1", 60)
            ]

        task = asyncio.ensure_future(follow())
        await server.until(lambda: server.watching == 1)
        server.relabel(n="1")
        server.push_raw(b'{"type": "MODIFIED", "object": {"metadata"')  # in two parts
        server.push_raw(b': {"labels": {"n": "2"}}}}\n\n')
        await client.get_node()  # other calls go on meanwhile
        server.push_raw(None)
        assert await task == ["1", "2"]
        query = server.requests[0].query
        assert query["fieldSelector"] == f"metadata.name={NODE}"
        assert query["resourceVersion"] == "1"

    with_server(tmp_path, play)


@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (b'{"type":"ERROR","object":{"code":410,"reason":"Expired"}}\n', 410, "Expired"),
        (b'{"type":"ERROR","object":{"code":"x","reason":"Odd"}}\n', 500, "Odd"),
        (b'{"type":"ERROR"}\n', 500, "http-500"),
        (b"{not json}\n", 0, "not-json"),
        (b"x" * 300_000, 0, "too-long"),
    ],
)
def test_a_watch_that_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, status: int, kind: str
) -> None:
    monkeypatch.setattr(answers, "MAX_BODY", 200_000)

    async def play(server: ApiServer, client: ApiClient) -> None:
        async def follow() -> None:
            async for _ in client.watch_node("1", 60):
                pass

        task = asyncio.ensure_future(follow())
        await server.until(lambda: server.watching == 1)
        server.push_raw(data)
        error = await fails(task)
        assert (error.status, error.kind) == (status, kind)

    with_server(tmp_path, play)


def test_a_watch_that_falls_silent_is_given_up_on(tmp_path: Path) -> None:
    async def play(server: ApiServer, client: ApiClient) -> None:
        async def follow() -> None:
            async for _ in client.watch_node("1", 0):
                pass

        assert (await fails(asyncio.ensure_future(follow()))).kind == "timeout"

    with_server(tmp_path, play, request_timeout=0.3)
