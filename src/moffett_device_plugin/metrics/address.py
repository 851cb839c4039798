"""The listen address of the metrics server."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ..runtime.errors import ConfigurationError

_REMEDY = "use HOST:PORT with an IP address, such as 127.0.0.1:9400 or [::1]:9400, or :PORT for all"


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address, empty for all addresses of the node, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, key: str = "--metrics-address") -> Address | None:
    """None for an empty text: metrics are off. Raises ConfigurationError.

    >>> parse_address("[::1]:9400")
    Address(host='::1', port=9400)
    """
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = "127.0.0.1" if host == "localhost" else host[1:-1] if bracketed else host
    if not (colon and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigurationError(key, text, _REMEDY)
    if bare or bracketed:
        try:
            socket.inet_pton(socket.AF_INET6 if bracketed else socket.AF_INET, bare)
        except (OSError, ValueError):
            raise ConfigurationError(key, text, _REMEDY) from None
    return Address(bare, int(port))
