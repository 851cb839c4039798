"""A stand-in for systemd-logind: the D-Bus calls by which a kubelet learns of a shutdown.

A machine without systemd has no logind to ask, and one with it would have to be shut down.
This is bus and logind in one, on a unix socket that DBUS_SYSTEM_BUS_ADDRESS leads the
kubelet to. Protocol: the D-Bus specification; calls: org.freedesktop.login1(5).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .shell import wait_for

_CALL, _REPLY, _SIGNAL = 1, 2, 4
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _SENDER, _SIGNATURE, _FDS = 1, 2, 3, 5, 7, 8, 9
_NAME, _OBJECT, _MANAGER = (
    "org.freedesktop.login1",
    "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager",
)
_INHIBIT_SECONDS = 600


@dataclass(slots=True)
class Logind:
    """Serves kubelets that connect to ``path``, one after the other."""

    path: Path
    _listener: socket.socket | None = None
    _kubelet: socket.socket | None = None
    _locks: list[int] = field(default_factory=list)
    _subscribed: bool = False

    @property
    def prefix(self) -> list[str]:
        """The command that makes a program take this for the system's bus."""
        return ["env", f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={self.path}"]

    def listen(self) -> None:
        """Begin to serve."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """End, with every connection."""
        for end in (self._listener, self._kubelet):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def wait_for_kubelet(self) -> None:
        """Wait until the kubelet delays shutdowns and listens for them."""
        wait_for("a kubelet's inhibitor lock", lambda: self._subscribed, seconds=30)

    def prepare_for_shutdown(self, starting: bool) -> None:
        """Announce a shutdown, or that it was called off."""
        assert self._kubelet is not None
        fields = [
            _header_text(_PATH, "o", _OBJECT),
            _header_text(_INTERFACE, "s", _MANAGER),
            _header_text(_MEMBER, "s", "PrepareForShutdown"),
        ]
        body = struct.pack("<I", starting)
        self._kubelet.sendall(_message(_SIGNAL, fields, "b", body))

    def wait_for_release(self, seconds: float) -> None:
        """Wait until the kubelet lets the machine go down."""
        lock = self._locks[-1]
        # The other end of the pipe is the kubelet's lock: its end reads as an end of file.
        wait_for(
            "the kubelet to let the machine go down",
            lambda: bool(select.select([lock], [], [], 0)[0]),
            seconds=seconds,
        )

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._kubelet, _ = listener.accept()
                self._subscribed = False
                with self._kubelet.makefile("rb") as stream, contextlib.suppress(EOFError):
                    self._authenticate(self._kubelet, stream)
                    while True:
                        self._answer(self._kubelet, stream)

    def _authenticate(self, kubelet: socket.socket, stream: BinaryIO) -> None:
        _exactly(stream, 1)  # credentials, by way of a NUL
        for line in iter(stream.readline, b"BEGIN\r\n"):
            if not line:
                raise EOFError
            answer = b"ERROR"
            if line.startswith(b"AUTH EXTERNAL"):  # with an identity or without
                answer = b"OK " + b"0" * 32
            elif line.startswith(b"AUTH"):
                answer = b"REJECTED EXTERNAL"
            elif line.startswith(b"NEGOTIATE_UNIX_FD"):
                answer = b"AGREE_UNIX_FD"
            kubelet.sendall(answer + b"\r\n")

    def _answer(self, kubelet: socket.socket, stream: BinaryIO) -> None:
        start = _exactly(stream, 16)
        order, kind, _, _, body, serial, fields = struct.unpack("<cBBBIII", start)
        assert order == b"l", "a little-endian machine was expected"
        header = _exactly(stream, fields + -fields % 8)
        _exactly(stream, body)
        if kind != _CALL:
            return
        to = _header_number(_REPLY_SERIAL, serial)
        if b"Hello\0" in header:
            text = b":1.1"
            reply = struct.pack("<I", len(text)) + text + b"\0"
            kubelet.sendall(_message(_REPLY, [to], "s", reply))
        elif b"Inhibit\0" in header:
            read, write = os.pipe()
            self._locks.append(read)
            message = _message(_REPLY, [to, _header_number(_FDS, 1)], "h", struct.pack("<I", 0))
            socket.send_fds(kubelet, [message], [write])
            os.close(write)
        elif b"Get\0" in header:
            reply = b"\1t\0" + bytes(5) + struct.pack("<Q", _INHIBIT_SECONDS * 1_000_000)
            kubelet.sendall(_message(_REPLY, [to], "v", reply))
        else:
            kubelet.sendall(_message(_REPLY, [to], "", b""))
            # The last that the kubelet asks for, after it has its lock.
            self._subscribed = self._subscribed or b"AddMatch\0" in header


def _header_text(number: int, signature: str, text: str) -> bytes:
    encoded = text.encode()
    start = struct.pack("<BB2sI", number, 1, signature.encode() + b"\0", len(encoded))
    return start + encoded + b"\0"


def _header_number(number: int, value: int) -> bytes:
    return struct.pack("<BB2sI", number, 1, b"u\0", value)


def _message(kind: int, fields: list[bytes], signature: str, body: bytes) -> bytes:
    """Return a message. Each header field begins at a multiple of 8 bytes."""
    fields = [*fields, _header_text(_SENDER, "s", _NAME)]
    if signature:
        named = signature.encode()
        start = struct.pack("<BB2sB", _SIGNATURE, 1, b"g\0", len(named))
        fields.append(start + named + b"\0")
    header = b""
    for entry in fields:
        header += bytes(-len(header) % 8) + entry
    start = struct.pack("<cBBBIII", b"l", kind, 1, 1, len(body), 1, len(header))
    return start + header + bytes(-len(header) % 8) + body


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Logind]:
    """Serve for the length of a block."""
    logind = Logind(path)
    logind.listen()
    try:
        yield logind
    finally:
        logind.close()
