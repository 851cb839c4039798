"""The API server's own HTTP, for what kubectl would be too slow for."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .cluster import Cluster, Object
from .shell import wait_for


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """A connection to the API server as the administrator; for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._connection = _Connection(path)

    def request(self, method: str, path: str, body: Object | None = None) -> Object:
        """Return the answer; anything but a 2xx is an AssertionError with its text."""
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if content else {}
        self._connection.request(method, path, content, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        assert 200 <= response.status < 300, f"{method} {path}: {response.status} {text}"
        answer: dict[str, Any] = json.loads(text)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def connected(cluster: Cluster) -> Iterator[Api]:
    """Connect for a block, by a `kubectl proxy` on a unix socket: it knows the credentials,
    and such a socket can be reached from outside of the cluster's network."""
    path = cluster.layout.state / "api.sock"
    path.unlink(missing_ok=True)
    command = cluster.kubectl_command("proxy", f"--unix-socket={path}")
    proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for("kubectl proxy's socket", path.exists, seconds=30)
        api = Api(path)
        try:
            yield api
        finally:
            api.close()
    finally:
        proxy.kill()
        proxy.wait()
