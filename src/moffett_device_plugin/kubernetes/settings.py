"""Settings of the API client. Imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..runtime.errors import ConfigurationError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """An API server and one node of its cluster. Times are in seconds.

    `node` is the Node object's name. `connect_timeout` is for TCP and TLS together,
    `request_timeout` for a whole exchange including the connection. The files are read
    at each use, because Kubernetes replaces their contents.
    """

    url: str
    node: str
    token_file: Path = SERVICE_ACCOUNT / "token"
    ca_file: Path = SERVICE_ACCOUNT / "ca.crt"
    connect_timeout: float = 10.0
    request_timeout: float = 30.0

    @property
    def host(self) -> str:
        """A name or an address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 443


@dataclass(frozen=True, slots=True)
class ApiFeatures:
    """The enabled features. `event_namespace` must be one that the API server accepts for
    events of Nodes: `default`, on all versions."""

    labels: bool = False
    events: bool = False
    condition: bool = False
    cordons: bool = False
    event_namespace: str = "default"

    @property
    def any(self) -> bool:
        return self.labels or self.events or self.condition or self.cordons


def api_settings(
    environment: Mapping[str, str],
    node: str,
    *,
    server: str = "",
    token_file: Path | None = None,
    ca_file: Path | None = None,
) -> ApiSettings:
    """The in-cluster settings, or those of `server`. Raises ConfigurationError."""
    if not node:
        raise ConfigurationError(
            "--node-name", "", "set SPU_NODE_NAME from spec.nodeName in the pod's manifest"
        )
    settings = ApiSettings(
        check_url(server) if server else _service_url(environment),
        node,
        token_file or SERVICE_ACCOUNT / "token",
        ca_file or SERVICE_ACCOUNT / "ca.crt",
    )
    for path, what in ((settings.token_file, "token"), (settings.ca_file, "CA certificate")):
        if not path.is_file():
            raise ConfigurationError(
                f"the service account's {what}",
                str(path),
                "no such file; set serviceAccountName for the pod and do not disable"
                " automountServiceAccountToken",
            )
    return settings


def check_url(text: str, key: str = "--api-server") -> str:
    """Raises ConfigurationError for anything but `https://HOST[:PORT]`."""
    remedy = "use https://HOST:PORT, such as https://10.96.0.1:443"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ConfigurationError(key, text, remedy) from None
    plain = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme != "https" or not parts.hostname or parts.username or not plain:
        raise ConfigurationError(key, text, remedy)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(key, text, remedy)
    return text.rstrip("/")


def _service_url(environment: Mapping[str, str]) -> str:
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigurationError(
            "KUBERNETES_SERVICE_HOST",
            host,
            "set in every pod; outside of a pod use --api-server",
        )
    name = f"[{host}]" if ":" in host else host
    return check_url(f"https://{name}:{port}", "KUBERNETES_SERVICE_HOST")
