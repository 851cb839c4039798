"""Where the API server is, and how often it is asked when it does not answer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from moffett_device_plugin.kubernetes.errors import ApiError, Backoff, ErrorLog
from moffett_device_plugin.kubernetes.settings import ApiSettings, api_settings, check_url
from moffett_device_plugin.runtime.errors import ConfigurationError

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    return tmp_path


def settings(
    account: Path, environment: dict[str, str], node: str = "n", server: str = ""
) -> ApiSettings:
    token, ca = account / "token", account / "ca.crt"
    return api_settings(environment, node, server=server, token_file=token, ca_file=ca)


def test_in_a_pod(account: Path) -> None:
    found = settings(account, POD)
    assert (found.url, found.host, found.port) == ("https://10.96.0.1:443", "10.96.0.1", 443)


def test_in_a_pod_of_an_ipv6_cluster(account: Path) -> None:
    found = settings(account, {**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert (found.url, found.host) == ("https://[fd00::1]:443", "fd00::1")


def test_a_named_server_wins(account: Path) -> None:
    found = settings(account, POD, server="https://api.example:6443/")
    assert (found.url, found.host, found.port) == ("https://api.example:6443", "api.example", 6443)


def test_outside_of_a_pod_the_remedy_is_named(account: Path) -> None:
    with pytest.raises(ConfigurationError, match="--api-server"):
        settings(account, {})


def test_no_node_name(account: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.nodeName"):
        settings(account, POD, node="")


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_no_service_account(account: Path, name: str) -> None:
    (account / name).unlink()
    with pytest.raises(ConfigurationError, match="automountServiceAccountToken"):
        settings(account, POD)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1", "10.0.0.1:443", "https://", "https://h:99999", "https://u@h", "https://h/p",
        "https://h?x", "https://h\r\nX: y", "https://[::1",
    ],
)  # fmt: skip
def test_a_wrong_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https://HOST:PORT"):
        check_url(url)


def error(status: int = 500, kind: str = "x", after: float | None = None) -> ApiError:
    return ApiError(status, kind, "text", after)


def test_pauses_grow_to_a_limit_and_start_again_after_a_success() -> None:
    backoff = Backoff(chance=lambda: 1.0)
    assert [backoff.failed(error()) for _ in range(11)][:10] == [
        1, 2, 4, 8, 16, 32, 64, 128, 256, 300,
    ]  # fmt: skip
    backoff.succeeded()
    assert backoff.failed(error()) == 1


def test_pauses_differ_from_node_to_node() -> None:
    assert Backoff(chance=lambda: 0.0).failed() == 0.5
    assert Backoff(chance=lambda: 0.5).failed() == 0.75


def test_what_the_server_asks_for_is_not_undercut_nor_believed_without_limit() -> None:
    backoff = Backoff(chance=lambda: 0.0)
    assert backoff.failed(error(429, after=20.0)) == 20.0
    assert backoff.failed(error(429, after=1e9)) == 300.0


def test_a_missing_right_is_not_asked_for_again_at_once() -> None:
    assert Backoff(chance=lambda: 1.0).failed(error(403)) == 30.0


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_an_error_is_logged_once_when_it_begins_changes_and_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    errors = ErrorLog("https://api")
    for kind in ("os-111", "os-111", "timeout", "timeout"):
        errors.failed("get", "nodes", error(0, kind))
    errors.succeeded("get", "nodes")
    errors.succeeded("get", "nodes")
    assert logged(caplog) == ["api-unavailable", "api-unavailable", "api-available"]
    assert caplog.records[-1].__dict__["after_failures"] == 4


def test_each_missing_permission_is_logged_once_as_the_rule_to_add(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    errors = ErrorLog("https://api")
    for _ in range(3):
        errors.failed("patch", "nodes/status", error(403, "Forbidden"))
        errors.failed("create", "events", error(403, "Forbidden"))
    errors.succeeded("create", "events")
    assert logged(caplog) == ["api-forbidden", "api-forbidden", "api-accepted"]
    rule = '{apiGroups: [""], resources: ["nodes/status"], verbs: ["patch"]}'
    assert caplog.records[0].__dict__["remedy"].endswith(rule)
