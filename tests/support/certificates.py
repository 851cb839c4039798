"""Certificates for servers in tests: P-256, DER and PEM by hand, since Python's own
library cannot make any and nothing else here needs one that can."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int]

EC_KEY, P256 = "1.2.840.10045.2.1", "1.2.840.10045.3.1.7"
ECDSA_SHA256, COMMON_NAME = "1.2.840.10045.4.3.2", "2.5.4.3"
SUBJECT_ALT_NAME, BASIC_CONSTRAINTS = "2.5.29.17", "2.5.29.19"


@dataclass(frozen=True)
class Issued:
    """A private key and its certificate, in PEM."""

    name: str
    secret: int
    key: str
    certificate: str

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Into files; gives those of the certificate and of the key."""
        paths = (folder / f"{self.name}.crt", folder / f"{self.name}.key")
        for path, text in zip(paths, (self.certificate, self.key), strict=True):
            path.write_text(text)
        return paths


def issue(name: str, *hosts: str, by: Issued | None = None, seconds: float = 86_400.0) -> Issued:
    """A certificate for these names and addresses; for none, one of a CA."""
    secret = secrets.randbelow(N - 1) + 1
    public = b"\x04" + b"".join(part.to_bytes(32, "big") for part in _times(secret, G))
    algorithm = _sequence(_oid(ECDSA_SHA256))
    now = time.time()
    extensions = [
        _sequence(
            _oid(BASIC_CONSTRAINTS), _octets(_sequence(*([] if hosts else [b"\x01\x01\xff"])))
        )
    ]
    if hosts:
        extensions.append(
            _sequence(_oid(SUBJECT_ALT_NAME), _octets(_sequence(*(_host(host) for host in hosts))))
        )
    body = _sequence(
        _tag(0xA0, _integer(2)),
        _integer(secrets.randbits(63)),
        algorithm,
        _name(by.name if by else name),
        _sequence(_moment(now - 86_400), _moment(now + seconds)),
        _name(name),
        _sequence(_sequence(_oid(EC_KEY), _oid(P256)), _bits(public)),
        _tag(0xA3, _sequence(*extensions)),
    )
    signature = _sign(by.secret if by else secret, body)
    key = _sequence(_integer(1), _octets(secret.to_bytes(32, "big")), _tag(0xA0, _oid(P256)))
    return Issued(
        name,
        secret,
        _pem("EC PRIVATE KEY", key),
        _pem("CERTIFICATE", _sequence(body, algorithm, _bits(signature))),
    )


def _sign(secret: int, body: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(body).digest(), "big")
    nonce = secrets.randbelow(N - 1) + 1
    r = _times(nonce, G)[0] % N
    s = pow(nonce, -1, N) * (digest + r * secret) % N
    return _sequence(_integer(r), _integer(s))


def _times(factor: int, point: Point) -> Point:
    total: Point | None = None
    while factor:
        if factor & 1:
            total = point if total is None else _plus(total, point)
        point = _plus(point, point)
        factor >>= 1
    assert total is not None
    return total


def _plus(a: Point, b: Point) -> Point:
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def _tag(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def _sequence(*parts: bytes) -> bytes:
    return _tag(0x30, b"".join(parts))


def _integer(value: int) -> bytes:
    return _tag(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _octets(content: bytes) -> bytes:
    return _tag(0x04, content)


def _bits(content: bytes) -> bytes:
    return _tag(0x03, b"\x00" + content)


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    encoded = bytearray([first * 40 + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        encoded += bytes(reversed(groups))
    return _tag(0x06, bytes(encoded))


def _name(text: str) -> bytes:
    common = _sequence(_oid(COMMON_NAME), _tag(0x0C, text.encode()))
    return _sequence(_tag(0x31, common))


def _moment(seconds: float) -> bytes:
    return _tag(0x17, time.strftime("%y%m%d%H%M%SZ", time.gmtime(seconds)).encode())


def _host(host: str) -> bytes:
    try:
        return _tag(0x87, ipaddress.ip_address(host).packed)
    except ValueError:
        return _tag(0x82, host.encode())


def _pem(kind: str, der: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n"
