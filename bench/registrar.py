"""The kubelet's own half: a Registration server in a process of its own.

It is a process so that it can die as a kubelet dies: at once, leaving its socket
behind. Started with the directory as its argument, it says `ready`, waits for a
line on its input, and then does what a kubelet does when it starts: deletes
what is in the directory, and makes `kubelet.sock`. Everything it has to tell is a
line of JSON; times are seconds of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc

from moffett_device_plugin import api
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb

_lock = threading.Lock()


def tell(**event: object) -> None:
    with _lock:
        print(json.dumps(event), flush=True)


def register(request: pb.RegisterRequest, _: grpc.ServicerContext) -> pb.Empty:
    tell(
        event="registered",
        at=time.monotonic(),
        endpoint=request.endpoint,
        resource=request.resource_name,
    )
    return pb.Empty()


def empty(directory: Path) -> None:
    """As the kubelet does: all but its checkpoint. Its own old socket goes last, and
    so the new one gets the same inode number on a file system that reuses them."""
    entries = sorted(directory.iterdir(), key=lambda path: path.name == api.KUBELET_SOCKET)
    for path in entries:
        if path.name == api.KUBELET_CHECKPOINT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps this thread on its processor, where the system allows it.

    A plugin that watches the directory wakes at `bind`, and would often be given our
    processor before we come to `listen`; its first attempt would be refused then.
    That can happen under a real kubelet as well, but it would be our doing here.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def main() -> None:
    directory = Path(sys.argv[1])
    service, _, method = api.REGISTER.strip("/").partition("/")
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(
        register,
        request_deserializer=pb.RegisterRequest.FromString,
        response_serializer=pb.Empty.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    tell(event="ready")
    if not sys.stdin.readline():
        return
    empty(directory)
    socket = directory / api.KUBELET_SOCKET
    at = time.monotonic()
    with undisturbed():
        server.add_insecure_port(f"unix:{socket}")
    server.start()
    tell(event="bound", at=at, inode=socket.stat().st_ino)
    sys.stdin.read()  # until the parent is gone


if __name__ == "__main__":
    main()
