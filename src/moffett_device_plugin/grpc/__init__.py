"""gRPC over HTTP/2 on a unix socket, as small as a device plugin needs it.

    frames      bytes <-> HTTP/2 frames (pure)
    connection  one HTTP/2 connection as a state machine without I/O (pure)
    messages    gRPC's length prefix, status codes and trailers (pure)
    server      asyncio at the edge: unary and server-streaming methods
    client      asyncio at the edge: the same, from the other side

docs/decisions/0001-grpc.md has the measurements that led here.
"""
